//! Shared by the model test and the fuzz target (which includes this folder by its path).

pub mod oracle;
pub mod run;
