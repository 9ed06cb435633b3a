//! Code that the model test shares with the fuzz targets, which include this folder by its path.

pub mod oracle;
pub mod run;
