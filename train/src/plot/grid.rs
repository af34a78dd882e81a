//! Grids of grey images.

use super::{PlotError, png, write};
use std::path::Path;

/// Grey images of one size, one after the other: `f32[n, height, width]` in `0..=1`; what is outside is drawn as the nearest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grey<'a> {
    /// The pixels.
    pub pixels: &'a [f32],
    /// Height of an image.
    pub height: usize,
    /// Width of an image.
    pub width: usize,
}

/// Writes images to a PNG file, each row of `rows` in a row of its own, every pixel as a square of `scale` pixels. So originals
/// stand above their reconstructions.
///
/// ```no_run
/// use graphc_train::plot::{Grey, save_grid};
/// # let (originals, reconstructions) = (vec![0.0f32; 640], vec![0.0f32; 640]);
/// let grey = |pixels| Grey { pixels, height: 8, width: 8 };
/// save_grid("digits.png", &[grey(&originals), grey(&reconstructions)], 4)?;
/// # Ok::<(), graphc_train::plot::PlotError>(())
/// ```
///
/// # Errors
/// [`PlotError::Draw`] if pixels are no whole number of images, or there is nothing to draw; [`PlotError::Io`].
pub fn save_grid(path: impl AsRef<Path>, rows: &[Grey<'_>], scale: usize) -> Result<(), PlotError> {
    let path = path.as_ref();
    let fail = |message: &str| PlotError::Draw { path: path.into(), message: message.to_owned() };
    let count = |row: &Grey<'_>| {
        let size = row.height * row.width;
        (size > 0 && row.pixels.len().is_multiple_of(size)).then(|| row.pixels.len() / size)
    };
    let counts: Option<Vec<usize>> = rows.iter().map(count).collect();
    let counts = counts.ok_or_else(|| fail("the pixels are no whole number of images"))?;
    // A line of grey between images.
    let cell = |extent: usize| extent * scale + 1;
    let width = rows.iter().zip(&counts).map(|(r, n)| n * cell(r.width)).max().unwrap_or(0) + 1;
    let height = rows.iter().map(|r| cell(r.height)).sum::<usize>() + 1;
    if scale == 0 || counts.iter().all(|&n| n == 0) {
        return Err(fail("there is nothing to draw"));
    }
    let mut canvas = vec![96; width * height];
    let mut top = 1;
    for (row, n) in rows.iter().zip(counts) {
        for i in 0..n {
            let left = 1 + i * cell(row.width);
            for y in 0..row.height * scale {
                for x in 0..row.width * scale {
                    let value = row.pixels[(i * row.height + y / scale) * row.width + x / scale];
                    canvas[(top + y) * width + left + x] = (value.clamp(0.0, 1.0) * 255.0).round() as u8;
                }
            }
        }
        top += cell(row.height);
    }
    let file = png(&canvas, width, height, png::ColorType::Grayscale).map_err(|e| fail(&e))?;
    write(path, &file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_where_they_belong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/grid.png");
        let row = Grey { pixels: &[0.0, 1.0, 2.0, -1.0, 0.5, 0.5, 0.5, 0.5], height: 2, width: 2 };
        save_grid(&path, &[row, row], 3).unwrap();
        let file = std::io::BufReader::new(std::fs::File::open(&path).unwrap());
        let mut reader = png::Decoder::new(file).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height), (15, 15));
        let at = |y: usize, x: usize| pixels[y * 15 + x];
        assert_eq!(
            [at(1, 1), at(1, 4), at(4, 1), at(4, 4), at(3, 10), at(0, 0), at(1, 7)],
            [0, 255, 255, 0, 128, 96, 96]
        );
        assert_eq!(pixels[7 * 15..14 * 15], pixels[..7 * 15]);
        assert!(save_grid(&path, &[Grey { height: 3, ..row }], 1).is_err());
        assert!(save_grid(&path, &[], 1).is_err());
    }
}
