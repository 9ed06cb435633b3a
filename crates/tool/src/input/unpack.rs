//! Finds out how a file is packed, and unpacks it.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek, SeekFrom};
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use bzip2::bufread::MultiBzDecoder;
use flate2::CrcReader;
use flate2::bufread::{DeflateDecoder, MultiGzDecoder};
use lzma_rust2::XzReader;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use zip::{CompressionMethod, ZipArchive};

use super::shown::shown;

/// As many bytes tell one format from another: a tar archive is known by bytes 257 to 262.
const SNIFFED: u64 = 512;
/// The most times that a file may be packed over.
const LAYERS: usize = 4;
/// The most files of an archive that a message lists.
const NAMED: usize = 12;

/// The position in a file.
#[derive(Clone)]
pub struct Position {
    read: Rc<Cell<u64>>,
    total: Option<u64>,
}

impl Position {
    /// Bytes that have been read.
    pub fn read(&self) -> u64 {
        self.read.get()
    }

    /// Bytes in all; none if that is not known, as for a pipe.
    pub fn total(&self) -> Option<u64> {
        self.total
    }
}

/// Counts the bytes that are read from a file.
struct Counted<R> {
    input: R,
    position: Position,
}

impl<R: Read> Counted<R> {
    fn new(input: R, total: Option<u64>) -> Self {
        Self { input, position: Position { read: Rc::default(), total } }
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.input.read(buffer)?;
        self.position.read.set(self.position.read() + bytes as u64);
        Ok(bytes)
    }
}

/// An unpacked file.
pub(super) struct Unpacked {
    /// Its first bytes.
    pub(super) head: Vec<u8>,
    /// All of its contents.
    pub(super) bytes: Box<dyn BufRead>,
    pub(super) position: Position,
}

/// Unpacks a file of `total` bytes for as long as it is packed.
pub(super) fn unpack(file: Box<dyn Read>, total: Option<u64>) -> Result<Unpacked> {
    let counted = Counted::new(file, total);
    let mut position = counted.position.clone();
    let (mut head, mut bytes) = sniff(Box::new(counted))?;
    for _ in 0..=LAYERS {
        let (packing, unpacked) = if is_archive(&head) {
            let (file, inside) = open_archive(bytes).context("the file is a zip archive")?;
            position = inside;
            ("zip", file)
        } else if let Some(packing) = Packing::of(&head) {
            (packing.name(), packing.reader(bytes))
        } else {
            refuse_foreign(&head)?;
            return Ok(Unpacked { head, bytes, position });
        };
        (head, bytes) = sniff(Box::new(Named { packing, unpacked }))?;
    }
    bail!("the file is packed more than {LAYERS} times over");
}

/// Whether these are the first bytes of a zip archive: a file, the end of an empty archive, or an archive in parts.
fn is_archive(head: &[u8]) -> bool {
    [b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08"].iter().any(|magic| head.starts_with(*magic))
}

/// The first bytes of an input, and all of it.
pub(super) fn sniff(mut input: Box<dyn Read>) -> io::Result<(Vec<u8>, Box<dyn BufRead>)> {
    let mut head = Vec::new();
    input.by_ref().take(SNIFFED).read_to_end(&mut head)?;
    let whole = Cursor::new(head.clone()).chain(input);
    Ok((head, Box::new(BufReader::with_capacity(1 << 16, whole))))
}

/// A way of packing one file.
#[derive(Clone, Copy)]
enum Packing {
    Bzip2,
    Gzip,
    Xz,
    Zstd,
}

impl Packing {
    /// Told by the first bytes of a file; none if it is not packed, or in another way.
    fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31 | 0x17, ..] => Some(Self::Bzip2),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            // A frame, or one to be skipped.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Bzip2 => "bzip2",
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        }
    }

    /// Unpacks `packed`, a file of its own or the file in an archive.
    fn reader(self, packed: Box<dyn BufRead>) -> Box<dyn Read> {
        match self {
            Self::Bzip2 => Box::new(MultiBzDecoder::new(packed)),
            Self::Gzip => Box::new(MultiGzDecoder::new(packed)),
            Self::Xz => Box::new(XzReader::new(packed, true)),
            Self::Zstd => Box::new(Zstd::new(packed)),
        }
    }
}

/// An error for a packing that is known but cannot be read here.
fn refuse_foreign(head: &[u8]) -> Result<()> {
    let magics: [(&[u8], &str); 6] = [
        (b"\x04\x22\x4d\x18", "packed by lz4"),
        (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
        (b"LZIP", "packed by lzip"),
        (b"\x1f\x9d", "packed by compress"),
        (b"Rar!\x1a\x07", "a RAR archive"),
        (b"\x7fELF", "a program or a library"),
    ];
    for (magic, what) in magics {
        ensure!(
            !head.starts_with(magic),
            "the file is {what}, which cannot be read (unpack it, or give a trace)"
        );
    }
    let is_tar = head.get(257..262) == Some(b"ustar");
    ensure!(
        !is_tar,
        "the file is a tar archive (read one file of it: tar -xOf ARCHIVE FILE | smalloc replay -)"
    );
    Ok(())
}

/// Says in its errors how the file is packed.
struct Named {
    packing: &'static str,
    unpacked: Box<dyn Read>,
}

impl Read for Named {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.unpacked.read(buffer).map_err(|error| {
            let packing = self.packing;
            let text = format!("the file is packed by {packing}, and damaged or cut off: {error}");
            io::Error::new(error.kind(), text)
        })
    }
}

// ---- zstd --------------------------------------------------------------------------------------------------------

/// The frames of a file, one after the other.
struct Zstd {
    packed: Box<dyn BufRead>,
    decoder: FrameDecoder,
    /// Whether the decoder is in a frame.
    in_frame: bool,
}

impl Zstd {
    fn new(packed: Box<dyn BufRead>) -> Self {
        Self { packed, decoder: FrameDecoder::new(), in_frame: false }
    }

    /// Begins the next frame. False at the end of the file.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.packed.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.packed) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    io::copy(&mut self.packed.by_ref().take(length.into()), &mut io::sink())?;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }

    /// Fails if the frame that ends here has a checksum, and it is not that of its bytes.
    fn verify(&self) -> io::Result<()> {
        match self.decoder.get_checksum_from_data() {
            Some(sum) if Some(sum) != self.decoder.get_calculated_checksum() => Err(wrong_checksum()),
            _ => Ok(()),
        }
    }
}

impl Read for Zstd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.in_frame {
                while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                    let one = BlockDecodingStrategy::UptoBlocks(1);
                    self.decoder.decode_blocks(&mut self.packed, one).map_err(io::Error::other)?;
                }
                let bytes = self.decoder.read(buffer)?;
                if bytes > 0 || buffer.is_empty() {
                    return Ok(bytes);
                }
                self.verify()?;
            }
            self.in_frame = self.begin()?;
            if !self.in_frame {
                return Ok(0);
            }
        }
    }
}

// ---- zip ---------------------------------------------------------------------------------------------------------

/// Opens the only file of an archive. The archive is read whole, since its list of files is at its end.
fn open_archive(mut bytes: Box<dyn BufRead>) -> Result<(Box<dyn Read>, Position)> {
    let mut all = Vec::new();
    bytes.read_to_end(&mut all)?;
    let mut archive = ZipArchive::new(Cursor::new(all))?;
    let index = only_file(&mut archive)?;
    // The archive lends its files out only while it exists itself, so the file is read from the archive's bytes.
    let file = archive.by_index_raw(index)?;
    ensure!(!file.encrypted(), "the file in it is encrypted");
    let start = file.data_start().context("the file in it is nowhere")?;
    let (method, size, sum) = (file.compression(), file.compressed_size(), file.crc32());
    drop(file);
    let mut all = archive.into_inner();
    all.seek(SeekFrom::Start(start))?;
    let packed = Counted::new(all.take(size), Some(size));
    let position = packed.position.clone();
    let packed = Box::new(BufReader::new(packed));
    let unpacked: Box<dyn Read> = match method {
        CompressionMethod::STORE => packed,
        CompressionMethod::DEFLATE => Box::new(DeflateDecoder::new(packed)),
        CompressionMethod::BZIP2 => Packing::Bzip2.reader(packed),
        CompressionMethod::XZ => Packing::Xz.reader(packed),
        CompressionMethod::ZSTD => Packing::Zstd.reader(packed),
        method => bail!("the file in it is packed by a method that cannot be read here: {method:?}"),
    };
    Ok((Box::new(Checked { unpacked: CrcReader::new(unpacked), sum }), position))
}

/// The number of the only file in an archive. Folders do not count, nor does the file that macOS adds for each one.
fn only_file(archive: &mut ZipArchive<Cursor<Vec<u8>>>) -> Result<usize> {
    let mut files = Vec::new();
    for index in 0..archive.len() {
        let file = archive.by_index_raw(index)?;
        if !file.is_dir() && !file.name_raw().starts_with(b"__MACOSX/") {
            files.push((index, shown(file.name_raw())));
        }
    }
    match files.as_slice() {
        [] => bail!("there is no file in it"),
        [(index, _)] => Ok(*index),
        [(_, first), ..] => {
            let mut names: Vec<&str> = files.iter().take(NAMED).map(|(_, name)| name.as_str()).collect();
            if files.len() > NAMED {
                names.push("…");
            }
            let (count, names) = (files.len(), names.join(", "));
            bail!(
                "there are {count} files in it: {names} (read one: unzip -p ARCHIVE {first} | smalloc replay -)"
            )
        }
    }
}

/// Fails at the end if the checksum differs.
struct Checked {
    unpacked: CrcReader<Box<dyn Read>>,
    sum: u32,
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.unpacked.read(buffer)?;
        if bytes == 0 && !buffer.is_empty() && self.unpacked.crc().sum() != self.sum {
            return Err(wrong_checksum());
        }
        Ok(bytes)
    }
}

fn wrong_checksum() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "its checksum is another one")
}
