//! Pixels, with letters of 8 by 8 that are drawn twice as high, so that they can be read.

use std::io;

use anyhow::Result;
use font8x8::legacy::BASIC_LEGACY;

/// Red, green and blue.
pub(crate) type Colour = [u8; 3];

/// Pixels of a letter.
const LETTER: (usize, usize) = (8, 16);

pub(crate) struct Bitmap {
    width: usize,
    height: usize,
    pixels: Vec<Colour>,
}

impl Bitmap {
    /// White.
    pub(crate) fn new(width: usize, height: usize) -> Self {
        Self { width, height, pixels: vec![[255; 3]; width * height] }
    }

    fn set(&mut self, x: usize, y: usize, colour: Colour) {
        if x < self.width && y < self.height {
            self.pixels[y * self.width + x] = colour;
        }
    }

    /// A filled rectangle; parts outside of the picture are left out.
    pub(crate) fn fill(&mut self, x: usize, y: usize, width: usize, height: usize, colour: Colour) {
        for y in y..y + height {
            for x in x..x + width {
                self.set(x, y, colour);
            }
        }
    }

    /// The edge of a rectangle.
    pub(crate) fn outline(&mut self, x: usize, y: usize, width: usize, height: usize, colour: Colour) {
        self.fill(x, y, width, 1, colour);
        self.fill(x, y + height - 1, width, 1, colour);
        self.fill(x, y, 1, height, colour);
        self.fill(x + width - 1, y, 1, height, colour);
    }

    /// A line of text that begins at `x` and whose upper edge is at `y`. A letter outside of ASCII is a question mark.
    pub(crate) fn text(&mut self, x: usize, y: usize, colour: Colour, text: &str) {
        for (number, letter) in text.chars().enumerate() {
            let letter = BASIC_LEGACY.get(letter as usize).unwrap_or(&BASIC_LEGACY[usize::from(b'?')]);
            for (row, bits) in letter.iter().enumerate() {
                for column in (0..LETTER.0).filter(|column| bits >> column & 1 != 0) {
                    self.fill(x + number * LETTER.0 + column, y + 2 * row, 1, 2, colour);
                }
            }
        }
    }

    /// A line of text that ends at `x`.
    pub(crate) fn text_ending(&mut self, x: usize, y: usize, colour: Colour, text: &str) {
        self.text(x.saturating_sub(text.chars().count() * LETTER.0), y, colour, text);
    }

    /// A line of text whose middle is at `x`, or as near to it as there is room for.
    pub(crate) fn text_around(&mut self, x: usize, y: usize, colour: Colour, text: &str) {
        let width = text.chars().count() * LETTER.0;
        self.text(x.saturating_sub(width / 2).min(self.width.saturating_sub(width)), y, colour, text);
    }

    pub(crate) fn write_png(&self, out: impl io::Write) -> Result<()> {
        let mut encoder = png::Encoder::new(out, u32::try_from(self.width)?, u32::try_from(self.height)?);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::High);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(self.pixels.as_flattened())?;
        Ok(writer.finish()?)
    }
}
