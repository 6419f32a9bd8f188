//! Color scales.

use plotters::style::RGBColor;

/// ColorBrewer's Purples, as matplotlib's: white to violet.
const PURPLES: [[u8; 3]; 9] = [
    [252, 251, 253],
    [239, 237, 245],
    [218, 218, 235],
    [188, 189, 220],
    [158, 154, 200],
    [128, 125, 186],
    [106, 81, 163],
    [84, 39, 143],
    [63, 0, 125],
];

/// matplotlib's bwr: blue, white, red.
const BLUE_WHITE_RED: [[u8; 3]; 3] = [[0, 0, 255], [255, 255, 255], [255, 0, 0]];

/// Categories that stay apart for every kind of color vision (Okabe and Ito, 2008), and grays
/// beyond them.
const CATEGORIES: [[u8; 3]; 8] = [
    [0, 114, 178],
    [230, 159, 0],
    [0, 158, 115],
    [213, 94, 0],
    [86, 180, 233],
    [204, 121, 167],
    [150, 150, 150],
    [0, 0, 0],
];

/// The two signs of an input.
pub(super) const SIGNS: [RGBColor; 2] = [RGBColor(68, 1, 84), RGBColor(253, 231, 37)];

fn between(scale: &[[u8; 3]], share: f64) -> RGBColor {
    let at = share.clamp(0.0, 1.0) * (scale.len() - 1) as f64;
    let low = (at as usize).min(scale.len() - 2);
    let part = at - low as f64;
    let channel = |i: usize| {
        let (a, b) = (f64::from(scale[low][i]), f64::from(scale[low + 1][i]));
        (a + part * (b - a)).round() as u8
    };
    RGBColor(channel(0), channel(1), channel(2))
}

/// From 0 (white) to 1.
pub(super) fn purples(share: f64) -> RGBColor {
    between(&PURPLES, share)
}

/// From -1 (blue) through 0 (white) to 1 (red).
pub(super) fn blue_white_red(share: f64) -> RGBColor {
    between(&BLUE_WHITE_RED, share.midpoint(1.0))
}

pub(super) fn category(index: usize) -> RGBColor {
    let [r, g, b] = CATEGORIES[index % CATEGORIES.len()];
    RGBColor(r, g, b)
}
