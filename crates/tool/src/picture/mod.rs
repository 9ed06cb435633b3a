//! Pictures of a replay.

mod bitmap;
mod charts;
mod raster;

use anyhow::Result;
use smalloc::{MapOptions, Snapshot};

use crate::replay::Replay;

/// A picture that can be drawn of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Picture {
    /// Address over time, as PNG.
    Raster,
    /// Hops and holes over time, as SVG.
    Hops,
    /// Live and used bytes, top and footprint over time, as SVG.
    Memory,
    /// The places of the segments at one moment, as SVG.
    Map,
    /// The sizes of the holes at one moment, as SVG.
    Holes,
}

impl Picture {
    /// All pictures.
    pub const ALL: [Self; 5] = [Self::Raster, Self::Hops, Self::Memory, Self::Map, Self::Holes];

    /// The name of the option for it.
    pub fn option(self) -> &'static str {
        match self {
            Self::Raster => "raster",
            Self::Hops => "hops",
            Self::Memory => "memory",
            Self::Map => "map",
            Self::Holes => "holes",
        }
    }

    /// The format of its file, as in the name of one.
    pub fn format(self) -> &'static str {
        if self == Self::Raster { "png" } else { "svg" }
    }

    /// Draws the picture, and returns the contents of its file. `name` is that of the trace. `snapshot` is the moment
    /// that [`Map`](Self::Map) and [`Holes`](Self::Holes) show.
    ///
    /// # Errors
    ///
    /// If the picture is too large.
    pub fn draw(self, replay: &Replay, snapshot: &Snapshot, name: &str) -> Result<Vec<u8>> {
        let mut text = String::new();
        match self {
            Self::Raster => {
                let mut bytes = Vec::new();
                raster::write(replay.raster.clone(), name, &mut bytes)?;
                return Ok(bytes);
            }
            Self::Hops => text = charts::hops(&replay.series, &replay.stats(), name)?,
            Self::Memory => text = charts::memory(&replay.series, name)?,
            Self::Map => snapshot.write_map_svg(&mut text, MapOptions::svg())?,
            Self::Holes => snapshot.write_holes_svg(&mut text)?,
        }
        Ok(text.into_bytes())
    }
}
