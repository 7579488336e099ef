//! Plots as PNG.

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree};

/// Pixels per unit of the plot.
const ZOOM: f32 = 2.0;

/// Renders an SVG; `None` if invalid.
pub fn png(svg: &str) -> Option<Vec<u8>> {
    let mut options = Options::default();
    let fonts = options.fontdb_mut();
    fonts.load_font_data(epaint_default_fonts::UBUNTU_LIGHT.to_vec());
    fonts.set_sans_serif_family("Ubuntu");
    let tree = Tree::from_str(svg, &options).ok()?;
    let size = tree.size();
    let mut pixels = Pixmap::new((size.width() * ZOOM) as u32, (size.height() * ZOOM) as u32)?;
    resvg::render(&tree, Transform::from_scale(ZOOM, ZOOM), &mut pixels.as_mut());
    pixels.encode_png().ok()
}
