//! Charts.

use super::{PlotError, png, write};
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};
use std::path::Path;
use std::sync::Once;

/// Curves and points over two axes. What is not finite is left out.
///
/// ```no_run
/// use graphc_train::plot::Chart;
///
/// Chart::new("Digits", "epoch", "loss")
///     .log_y()
///     .curve("SGD", [(1.0, 0.9), (2.0, 0.4)])
///     .curve("Adam", [(1.0, 0.5), (2.0, 0.1)])
///     .save("losses.svg")?;
/// # Ok::<(), graphc_train::plot::PlotError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    title: String,
    x: String,
    y: String,
    log_y: bool,
    series: Vec<Series>,
}

#[derive(Clone, Debug, PartialEq)]
struct Series {
    name: String,
    points: Vec<(f64, f64)>,
    connected: bool,
}

/// Size of a chart, in pixels.
const SIZE: (u32, u32) = (800, 500);

const FONT: &str = "sans-serif";

/// Colours that differ for most eyes (Tableau 10, and four dark ones).
const COLOURS: [RGBColor; 14] = [
    RGBColor(31, 119, 180),
    RGBColor(255, 127, 14),
    RGBColor(44, 160, 44),
    RGBColor(214, 39, 40),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(227, 119, 194),
    RGBColor(127, 127, 127),
    RGBColor(188, 189, 34),
    RGBColor(23, 190, 207),
    RGBColor(0, 0, 0),
    RGBColor(0, 90, 50),
    RGBColor(130, 0, 60),
    RGBColor(20, 20, 140),
];

impl Chart {
    /// With a title and the names of the axes.
    pub fn new(title: &str, x: &str, y: &str) -> Self {
        Self { title: title.to_owned(), x: x.to_owned(), y: y.to_owned(), log_y: false, series: Vec::new() }
    }

    /// Draws powers of ten along the second axis; what is not positive is left out.
    pub fn log_y(self) -> Self {
        Self { log_y: true, ..self }
    }

    /// Adds a curve.
    pub fn curve(self, name: &str, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        self.with(name, points, true)
    }

    /// Adds a curve over 1, 2, ...
    pub fn curve_of(self, name: &str, values: &[f64]) -> Self {
        self.curve(name, (1..).map(f64::from).zip(values.iter().copied()))
    }

    /// Adds points.
    pub fn points(self, name: &str, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        self.with(name, points, false)
    }

    /// Whether most curves end higher than they begin: then the names are below them.
    fn rises(&self) -> bool {
        let ends = self.series.iter().filter_map(|s| Some((s.points.first()?.1, s.points.last()?.1)));
        let (up, all) = ends.fold((0, 0), |(up, all), (from, to)| (up + usize::from(to > from), all + 1));
        2 * up > all
    }

    fn with(mut self, name: &str, points: impl IntoIterator<Item = (f64, f64)>, connected: bool) -> Self {
        let points = points.into_iter().collect();
        self.series.push(Series { name: name.to_owned(), points, connected });
        self
    }

    /// Writes the chart, as SVG or PNG after the end of the name.
    ///
    /// # Errors
    /// [`PlotError`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), PlotError> {
        let path = path.as_ref();
        let fail = |message: String| PlotError::Draw { path: path.into(), message };
        let file = match path.extension().and_then(|e| e.to_str()) {
            Some("svg") => self.svg().map_err(fail)?.into_bytes(),
            Some("png") => self.png().map_err(fail)?,
            _ => return Err(PlotError::Format { path: path.into() }),
        };
        write(path, &file)
    }

    fn svg(&self) -> Result<String, String> {
        let mut out = String::new();
        self.draw(&SVGBackend::with_string(&mut out, SIZE).into_drawing_area())?;
        Ok(out)
    }

    fn png(&self) -> Result<Vec<u8>, String> {
        let mut pixels = vec![0; (SIZE.0 * SIZE.1 * 3) as usize];
        self.draw(&BitMapBackend::with_buffer(&mut pixels, SIZE).into_drawing_area())?;
        png(&pixels, SIZE.0 as usize, SIZE.1 as usize, png::ColorType::Rgb)
    }

    /// Where a point is drawn.
    fn place(&self, (x, y): (f64, f64)) -> Option<(f64, f64)> {
        let y = if self.log_y { y.log10() } else { y };
        (x.is_finite() && y.is_finite()).then_some((x, y))
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, plotters::coord::Shift>) -> Result<(), String> {
        static FONTS: Once = Once::new();
        FONTS.call_once(|| {
            // Fails for a font that is none; this one is.
            let _ = register_font(FONT, FontStyle::Normal, dejavu::sans::regular());
        });
        let text = |e: DrawingAreaErrorKind<B::ErrorType>| e.to_string();
        area.fill(&WHITE).map_err(text)?;
        let places = || self.series.iter().flat_map(|s| &s.points).filter_map(|&p| self.place(p));
        let ((x0, x1), (y0, y1)) = (range(places().map(|p| p.0)), range(places().map(|p| p.1)));
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, (FONT, 22))
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(64)
            .build_cartesian_2d(x0..x1, y0..y1)
            .map_err(text)?;
        let power = |y: &f64| format!("{:.1e}", 10f64.powf(*y));
        let plain = |y: &f64| number(*y);
        chart
            .configure_mesh()
            .x_desc(&self.x)
            .y_desc(&self.y)
            .x_label_formatter(&plain)
            .y_label_formatter(if self.log_y { &power } else { &plain })
            .label_style((FONT, 13))
            .light_line_style(WHITE)
            .bold_line_style(RGBColor(220, 220, 220))
            .draw()
            .map_err(text)?;
        for (series, colour) in self.series.iter().zip(COLOURS.iter().cycle()) {
            let points: Vec<_> = series.points.iter().filter_map(|&p| self.place(p)).collect();
            let drawn = if series.connected {
                chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))
            } else {
                chart.draw_series(points.into_iter().map(|p| Circle::new(p, 3, colour.filled())))
            };
            let style = colour.stroke_width(2);
            drawn
                .map_err(text)?
                .label(&series.name)
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], style));
        }
        if self.series.iter().any(|s| !s.name.is_empty()) {
            chart
                .configure_series_labels()
                .label_font((FONT, 13))
                .background_style(WHITE.mix(0.85))
                .border_style(RGBColor(160, 160, 160))
                .position(if self.rises() {
                    SeriesLabelPosition::LowerRight
                } else {
                    SeriesLabelPosition::UpperRight
                })
                .draw()
                .map_err(text)?;
        }
        area.present().map_err(text)
    }
}

/// What an axis shows: all values, and a little more.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (lo, hi) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), v| (lo.min(v), hi.max(v)));
    if lo > hi {
        return (0.0, 1.0);
    }
    let more = ((hi - lo) * 0.03).max(lo.abs().max(hi.abs()) * 1e-6).max(1e-12);
    (lo - more, hi + more)
}

/// Short, but not too much so.
fn number(v: f64) -> String {
    let digits = if v.abs() >= 100.0 {
        0
    } else if v.abs() >= 1.0 {
        2
    } else {
        4
    };
    let text = format!("{v:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        Chart::new("A title", "epoch", "loss")
            .curve_of("first", &[1.0, f64::NAN, 0.1, 0.0, 0.01])
            .points("dots", [(2.0, 0.5), (3.0, f64::INFINITY)])
    }

    #[test]
    fn charts_of_both_formats() {
        let dir = tempfile::tempdir().unwrap();
        for chart in [chart(), chart().log_y(), Chart::new("empty", "", "")] {
            chart.save(dir.path().join("a.svg")).unwrap();
            chart.save(dir.path().join("new/a.png")).unwrap();
        }
        let svg = chart().log_y().svg().unwrap();
        for text in ["A title", "epoch", "loss", "first", "dots", "<polyline", "<circle"] {
            assert!(svg.contains(text), "{text}");
        }
        // The curve leaves out NaN, and 0, which has no logarithm.
        assert_eq!(chart().series[0].points.iter().filter_map(|&p| chart().log_y().place(p)).count(), 3);
        let png = chart().png().unwrap();
        let reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        assert_eq!((reader.info().width, reader.info().height), SIZE);
        let error = chart().save("a.gif").unwrap_err().to_string();
        assert_eq!(error, "a.gif: charts are written as .svg or .png");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 0.25, 2.0, 12.5, 1500.0].map(number), ["0", "0.25", "2", "12.5", "1500"]);
    }
}
