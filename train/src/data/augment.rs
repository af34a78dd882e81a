//! Changes of images that leave their meaning: functions for [`Mapped`](super::Mapped). Each is a function of seed, epoch and
//! row alone.

use super::{Row, random};

/// Shifts images `[channels, height, width]` by up to `most` positions along both axes; zeros come in.
///
/// ```
/// use graphc_train::data::{Mapped, Table, augment};
///
/// let table = Table::new().with("x", &[1, 8, 8], vec![1.0f32; 640])?;
/// let shifted = Mapped::new(table, "x", augment::shift([1, 8, 8], 1));
/// # Ok::<(), graphc_train::data::DataError>(())
/// ```
pub fn shift([_, height, width]: [usize; 3], most: usize) -> impl Fn(Row, &mut [f32]) + Send + Sync {
    move |row, image| {
        let mut numbers = random(row);
        let mut by = || numbers.below(2 * most as u64 + 1) as i64 - most as i64;
        let (dy, dx) = (by(), by());
        let old = image.to_vec();
        for (i, pixel) in image.iter_mut().enumerate() {
            let (y, x) = ((i / width % height) as i64 - dy, (i % width) as i64 - dx);
            let inside = (0..height as i64).contains(&y) && (0..width as i64).contains(&x);
            let from = (i / (width * height) * height + y.max(0) as usize) * width + x.max(0) as usize;
            *pixel = if inside { old[from] } else { 0.0 };
        }
    }
}

/// Mirrors every other image `[.., width]`, left to right, at random.
///
/// ```
/// use graphc_train::data::{Mapped, Table, augment};
/// # let table = Table::new().with("x", &[3, 8, 8], vec![1.0f32; 1920])?;
/// let flipped = Mapped::new(table, "x", augment::flip(8));
/// # Ok::<(), graphc_train::data::DataError>(())
/// ```
pub fn flip(width: usize) -> impl Fn(Row, &mut [f32]) + Send + Sync {
    move |row, image| {
        if random(row).below(2) == 1 {
            image.chunks_mut(width).for_each(<[f32]>::reverse);
        }
    }
}

/// Adds normal noise of this standard deviation.
///
/// ```
/// use graphc_train::data::{Mapped, Table, augment};
/// # let table = Table::new().with("x", &[64], vec![1.0f32; 640])?;
/// let noisy = Mapped::new(table, "x", augment::noise(0.1));
/// # Ok::<(), graphc_train::data::DataError>(())
/// ```
pub fn noise(deviation: f64) -> impl Fn(Row, &mut [f32]) + Send + Sync {
    move |row, image| {
        let mut numbers = random(row);
        for x in image {
            // Box and Muller's method.
            let (u, v) = (1.0 - numbers.unit(), numbers.unit());
            let z = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
            *x += (deviation * z) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(index: usize) -> Row {
        Row { index, seed: 1, epoch: 2 }
    }

    #[test]
    fn shifts_stay_in_bounds_and_repeat() {
        let image: Vec<f32> = (1..=18).map(|i| i as f32).collect();
        let f = shift([2, 3, 3], 1);
        let made = |index| {
            let mut x = image.clone();
            f(row(index), &mut x);
            x
        };
        let all: Vec<_> = (0..50).map(made).collect();
        assert_eq!(all[7], made(7));
        for x in &all {
            // The centre moved by at most one, in both channels alike.
            let at = x.iter().position(|&v| v == 5.0).unwrap();
            assert_eq!(x[9 + at], 14.0);
        }
        let mut places: Vec<_> = all.iter().map(|x| x.iter().position(|&v| v == 5.0)).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 9);
    }

    #[test]
    fn flips_and_noise() {
        let flipped = |index| {
            let mut x = [1.0, 2.0, 3.0, 4.0];
            flip(2)(row(index), &mut x);
            x
        };
        let n = (0..1000).filter(|&i| flipped(i) == [2.0, 1.0, 4.0, 3.0]).count();
        assert!((450..550).contains(&n) && (0..1000).filter(|&i| flipped(i)[0] == 1.0).count() == 1000 - n);
        let mut x = vec![0.0; 10_000];
        noise(0.5)(row(0), &mut x);
        let variance = x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / 1e4;
        assert!((variance - 0.25).abs() < 0.02, "{variance}");
    }
}
