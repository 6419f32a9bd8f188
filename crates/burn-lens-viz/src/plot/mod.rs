//! Plots as SVG, as PNG and inside a page, through plotters.
//!
//! Text is measured and, in PNG, drawn with a subset of DejaVu Sans that this crate brings, so
//! a picture is the same on every machine.

mod colors;
mod line;
mod quadrants;
mod text;

use std::sync::Once;

use plotters::{
    backend::BitMapBackend,
    coord::Shift,
    prelude::{DrawingArea, DrawingBackend, IntoDrawingArea as _, SVGBackend, WHITE},
    style::{FontStyle, register_font},
};

use crate::VizError;

pub use line::{Line, LinePlot};
pub use quadrants::QuadrantFigure;

/// The family that plots are written in.
const FONT: &str = "sans-serif";

fn with_font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Fails only where the bytes are no font; drawing text then says so.
        let _ = register_font(FONT, FontStyle::Normal, include_bytes!("../../assets/DejaVuSans-subset.ttf"));
    });
}

/// What can be drawn.
trait Drawing {
    /// Width and height in pixels.
    fn size(&self) -> (u32, u32);

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<(), VizError>;

    /// Whether it is made of cells that meet, between which no background may shine through.
    fn has_cells(&self) -> bool {
        false
    }
}

/// A backend's failure.
fn failed(error: impl std::fmt::Display) -> VizError {
    VizError::Drawing(error.to_string())
}

fn svg(drawing: &impl Drawing) -> Result<String, VizError> {
    with_font();
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, drawing.size()).into_drawing_area();
    area.fill(&WHITE).map_err(failed)?;
    drawing.draw(&area)?;
    area.present().map_err(failed)?;
    drop(area);
    if drawing.has_cells() {
        text = text.replacen("<svg ", "<svg shape-rendering=\"crispEdges\" ", 1);
    }
    Ok(text)
}

fn png(drawing: &impl Drawing) -> Result<Vec<u8>, VizError> {
    with_font();
    let (width, height) = drawing.size();
    let mut pixels = vec![0; width as usize * height as usize * 3];
    let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
    area.fill(&WHITE).map_err(failed)?;
    drawing.draw(&area)?;
    area.present().map_err(failed)?;
    drop(area);
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&pixels).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(file)
}

/// A drawn plot, for [`Section::figure`](crate::Section::figure).
#[derive(Clone, Debug)]
pub struct Figure {
    pub(crate) svg: String,
    pub(crate) alt: String,
}

macro_rules! outputs {
    ($type:ty) => {
        impl $type {
            /// The picture as the text of an SVG file.
            ///
            /// # Errors
            ///
            /// If what is to be drawn does not fit itself, or a number is not finite.
            pub fn to_svg(&self) -> Result<String, VizError> {
                super::svg(self)
            }

            /// The picture as the bytes of a PNG file.
            ///
            /// # Errors
            ///
            /// As `to_svg`.
            pub fn to_png(&self) -> Result<Vec<u8>, VizError> {
                super::png(self)
            }

            /// The picture for a page; `alt` says in words what it shows.
            ///
            /// # Errors
            ///
            /// As `to_svg`.
            pub fn figure(&self, alt: &str) -> Result<super::Figure, VizError> {
                Ok(super::Figure { svg: self.to_svg()?, alt: alt.to_owned() })
            }
        }
    };
}
use outputs;
