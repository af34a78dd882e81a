//! Folders of image files.

use super::{DataError, Dataset};
use image::imageops::FilterType;
use std::path::{Path, PathBuf};

/// What is kept of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pixels {
    /// Brightness: one channel.
    Grey,
    /// Red, green and blue: three channels.
    Rgb,
}

/// Reads `folder/<class>/<image>` for PNG and JPEG files.
///
/// ```no_run
/// use graphc_train::data::{ImageFolder, Pixels};
///
/// let (data, classes) = ImageFolder::new("pets", Pixels::Rgb, 64, 64).load()?;
/// # Ok::<(), graphc_train::data::DataError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFolder {
    folder: PathBuf,
    pixels: Pixels,
    height: u32,
    width: u32,
}

impl ImageFolder {
    /// Images are resized to these extents.
    pub fn new(folder: impl AsRef<Path>, pixels: Pixels, height: u32, width: u32) -> Self {
        Self { folder: folder.as_ref().into(), pixels, height, width }
    }

    /// All images, `f32[channels, height, width]` in `0..=1`, and the names of the classes: folders and files in alphabetical order.
    ///
    /// # Errors
    /// [`DataError::Io`]; [`DataError::Malformed`] for a file that is no image; [`DataError::NotFound`] if there is no class.
    pub fn load(&self) -> Result<(Dataset, Vec<String>), DataError> {
        let classes: Vec<PathBuf> = list(&self.folder)?.into_iter().filter(|p| p.is_dir()).collect();
        if classes.is_empty() {
            return Err(DataError::NotFound {
                dir: self.folder.clone(),
                missing: vec!["a folder per class".to_owned()],
            });
        }
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for (label, class) in (0..).zip(&classes) {
            for path in list(class)? {
                pixels.extend(self.read(&path)?);
                labels.push(label);
            }
        }
        let channels = match self.pixels {
            Pixels::Grey => 1,
            Pixels::Rgb => 3,
        };
        let name = |p: &PathBuf| p.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let data = Dataset::new(
            pixels,
            &[channels, self.height as usize, self.width as usize],
            labels,
            classes.len(),
        )?;
        Ok((data, classes.iter().map(name).collect()))
    }

    /// Channels before rows.
    fn read(&self, path: &Path) -> Result<Vec<f32>, DataError> {
        let image = image::open(path).map_err(|e| match e {
            image::ImageError::IoError(source) => DataError::Io { path: path.into(), source },
            other => {
                DataError::Malformed { path: path.into(), place: String::new(), message: other.to_string() }
            }
        })?;
        let image = image.resize_exact(self.width, self.height, FilterType::Triangle);
        let scaled = |b: u8| f32::from(b) / 255.0;
        Ok(match self.pixels {
            Pixels::Grey => image.into_luma8().into_raw().into_iter().map(scaled).collect(),
            Pixels::Rgb => {
                let rgb = image.into_rgb8().into_raw();
                (0..3).flat_map(|c| rgb.iter().skip(c).step_by(3).map(|&b| scaled(b))).collect()
            }
        })
    }
}

/// What is in a folder, in alphabetical order.
fn list(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let io = |source| DataError::Io { path: folder.into(), source };
    let entries = std::fs::read_dir(folder).map_err(io)?;
    let mut paths = entries.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(io)?;
    paths.sort_unstable();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_classes() {
        let dir = tempfile::tempdir().unwrap();
        for (class, pixel) in [("b", [255, 0, 0]), ("a", [0, 51, 255])] {
            std::fs::create_dir(dir.path().join(class)).unwrap();
            let image = image::RgbImage::from_pixel(4, 2, image::Rgb(pixel));
            image.save(dir.path().join(class).join("1.png")).unwrap();
        }
        let (data, classes) = ImageFolder::new(dir.path(), Pixels::Rgb, 1, 2).load().unwrap();
        assert_eq!(
            (classes, data.labels(), data.dims()),
            (vec!["a".to_owned(), "b".to_owned()], &[0, 1][..], &[3, 1, 2][..])
        );
        assert_eq!(data.row(0), [0.0, 0.0, 0.2, 0.2, 1.0, 1.0]);
        assert_eq!(ImageFolder::new(dir.path(), Pixels::Grey, 2, 2).load().unwrap().0.dims(), [1, 2, 2]);
        std::fs::write(dir.path().join("a/2.png"), b"no image").unwrap();
        let error = ImageFolder::new(dir.path(), Pixels::Grey, 2, 2).load().unwrap_err().to_string();
        assert!(error.contains("a/2.png: "), "{error}");
    }
}
