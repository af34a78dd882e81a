//! Pictures of training runs: charts of curves and points, as SVG or PNG, and grids of images, as PNG.

mod chart;
mod grid;

pub use chart::Chart;
pub use grid::{Grey, save_grid};

use crate::checkpoint::replace;
use std::path::{Path, PathBuf};

/// Why a picture cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// The file cannot be written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The name ends neither in `.svg` nor in `.png`.
    #[error("{}: charts are written as .svg or .png", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// What is to be drawn cannot be.
    #[error("{}: {message}", path.display())]
    Draw {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
}

/// Writes a file as a whole, in a folder that is made if need be.
fn write(path: &Path, content: &[u8]) -> Result<(), PlotError> {
    let io = |source| PlotError::Io { path: path.into(), source };
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir).map_err(io)?;
    }
    replace(path, content).map_err(io)
}

/// Pixels as a PNG file.
fn png(pixels: &[u8], width: usize, height: usize, color: png::ColorType) -> Result<Vec<u8>, String> {
    let extent = |n: usize| u32::try_from(n).map_err(|e| e.to_string());
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, extent(width)?, extent(height)?);
    encoder.set_color(color);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(|e| e.to_string())?;
    writer.write_image_data(pixels).map_err(|e| e.to_string())?;
    writer.finish().map_err(|e| e.to_string())?;
    Ok(file)
}
