//! SiLU, x·σ(x), in integers.

use super::RESIDUAL_FRAC;

/// Bits of a number within a segment.
const WITHIN: u32 = RESIDUAL_FRAC - 3;

/// SiLU of a Q15.16 number: x·σ(x), within 0.75 units of 2^−16.
///
/// With r(x) = x·σ(−x), SiLU(x) is x − r(x) and SiLU(−x) is −r(x) for x ≥ 0. r is a parabola in
/// each segment of 1/8 below 16, and 0 beyond, where it is below 0.12 units. |SiLU(x)| is at most
/// |x|.
#[inline(always)]
pub fn silu(x: i32) -> i32 {
    let magnitude = x.unsigned_abs();
    let rest = match PARABOLAS.get((magnitude >> WITHIN) as usize) {
        None => 0,
        Some(&(constant, slope, curvature)) => {
            // From the middle of the segment: 13 bits with their sign.
            let t = (magnitude & ((1 << WITHIN) - 1)) as i32 - (1 << (WITHIN - 1));
            let slope = slope as i32 + ((curvature as i32 * t) >> 15);
            (constant + ((slope * t) >> 8) + 128) >> 8
        }
    };
    if x < 0 { -rest } else { x - rest }
}

/// r(x) in the segments [i/8, (i + 1)/8): value in the middle (24 fraction bits), slope (16) and
/// half the curvature (15), of the parabola through r at the three Chebyshev nodes.
#[rustfmt::skip]
static PARABOLAS: [(i32, i16, i16); 128] = [
    (507909, 30722, -8174), (1425838, 26663, -8047), (2215141, 22697, -7800),
    (2879765, 18883, -7443), (3425407, 15271, -6992), (3859267, 11905, -6465),
    (4189747, 8817, -5884), (4426127, 6028, -5268), (4578234, 3551, -4639), (4656119, 1389, -4013),
    (4669775, -466, -3407), (4628891, -2024, -2832), (4542646, -3305, -2299),
    (4419572, -4331, -1812), (4267443, -5127, -1377), (4093227, -5718, -993),
    (3903060, -6130, -661), (3702262, -6388, -378), (3495366, -6516, -141), (3286176, -6536, 55),
    (3077821, -6468, 212), (2872831, -6330, 337), (2673197, -6137, 432), (2480448, -5902, 502),
    (2295713, -5638, 551), (2119781, -5354, 583), (1953158, -5058, 600), (1796117, -4757, 605),
    (1648740, -4455, 600), (1510958, -4158, 588), (1382584, -3868, 571), (1263339, -3588, 549),
    (1152877, -3319, 524), (1050804, -3064, 498), (956694, -2822, 470), (870103, -2594, 442),
    (790579, -2380, 413), (717669, -2180, 385), (650928, -1994, 358), (589921, -1822, 332),
    (534231, -1662, 307), (483455, -1514, 283), (437214, -1378, 261), (395146, -1253, 240),
    (356913, -1139, 220), (322198, -1033, 201), (290703, -937, 184), (262153, -849, 168),
    (236293, -769, 153), (212886, -696, 140), (191713, -629, 127), (172573, -568, 115),
    (155281, -513, 105), (139668, -463, 95), (125579, -418, 86), (112871, -377, 78),
    (101415, -340, 71), (91092, -306, 64), (81793, -276, 58), (73422, -248, 52), (65888, -223, 47),
    (59111, -201, 43), (53016, -181, 38), (47537, -162, 35), (42614, -146, 31), (38191, -131, 28),
    (34219, -118, 25), (30653, -106, 23), (27453, -95, 21), (24581, -85, 18), (22006, -76, 17),
    (19696, -68, 15), (17625, -61, 13), (15769, -55, 12), (14105, -49, 11), (12615, -44, 10),
    (11280, -39, 9), (10085, -35, 8), (9015, -32, 7), (8057, -28, 6), (7200, -25, 6),
    (6433, -23, 5), (5747, -20, 5), (5133, -18, 4), (4584, -16, 4), (4093, -14, 3), (3655, -13, 3),
    (3262, -12, 3), (2912, -10, 2), (2599, -9, 2), (2319, -8, 2), (2069, -7, 2), (1846, -7, 1),
    (1647, -6, 1), (1469, -5, 1), (1310, -5, 1), (1168, -4, 1), (1042, -4, 1), (929, -3, 1),
    (828, -3, 1), (738, -3, 1), (658, -2, 1), (586, -2, 0), (522, -2, 0), (465, -2, 0),
    (415, -1, 0), (369, -1, 0), (329, -1, 0), (293, -1, 0), (261, -1, 0), (232, -1, 0),
    (207, -1, 0), (184, -1, 0), (164, -1, 0), (146, -1, 0), (130, 0, 0), (116, 0, 0), (103, 0, 0),
    (92, 0, 0), (82, 0, 0), (73, 0, 0), (65, 0, 0), (57, 0, 0), (51, 0, 0), (46, 0, 0), (40, 0, 0),
    (36, 0, 0), (32, 0, 0),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn exact(x: f64) -> f64 {
        x / (1.0 + (-x).exp())
    }

    #[test]
    fn every_argument_below_18_is_within_the_bound_and_the_rest_is_linear() {
        let mut worst = 0.0f64;
        for x in -(18 << 16)..=18 << 16 {
            let found = silu(x);
            worst = worst.max((found as f64 - exact(x as f64 / 65536.0) * 65536.0).abs());
            assert!(found.unsigned_abs() <= x.unsigned_abs(), "{x}");
        }
        assert!(worst < 0.75, "{worst}");
        for x in [16 << 16, i32::MAX, 12_345_678] {
            assert_eq!((silu(x), silu(-x)), (x, 0));
        }
        assert_eq!((silu(0), silu(i32::MIN)), (0, 0));
    }

    /// The table is what its description says.
    #[test]
    fn parabolas_pass_through_the_chebyshev_nodes() {
        let r = |x: f64| x - exact(x);
        for (i, &parabola) in PARABOLAS.iter().enumerate() {
            let middle = (i as f64 + 0.5) / 8.0;
            let node = |k: i32| (f64::from(2 * k + 1) * std::f64::consts::PI / 6.0).cos() / 16.0;
            let x: Vec<f64> = (0..3).map(node).collect();
            let y: Vec<f64> = x.iter().map(|x| r(middle + x)).collect();
            let first = (y[1] - y[0]) / (x[1] - x[0]);
            let second = (y[2] - y[1]) / (x[2] - x[1]);
            let curvature = (second - first) / (x[2] - x[0]);
            let slope = first - curvature * (x[0] + x[1]);
            let constant = y[0] - x[0] * (slope + curvature * x[0]);
            let expected = (
                (constant * 16_777_216.0).round() as i32,
                (slope * 65_536.0).round() as i16,
                (curvature * 32_768.0).round() as i16,
            );
            assert_eq!(parabola, expected, "{i}");
        }
    }
}
