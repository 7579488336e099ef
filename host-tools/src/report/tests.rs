use std::collections::BTreeMap;

use super::*;
use resnet_bk_schema::Storage;
use resnet_bk_schema::frontier::{Ablation, Captions, Kind};

fn findings() -> Findings {
    let row = |name: &str, kind, blob_bytes, kl| Row {
        name: name.into(),
        kind,
        blob_bytes,
        ratio: 8000.0 / blob_bytes as f64,
        ppl: 20.0 + 100.0 * kl,
        ppl_se: None,
        ppl_rise_percent: 500.0 * kl,
        ppl_rise_percent_se: Some(0.25),
        bits_per_byte: None,
        bits_per_byte_se: None,
        kl,
        kl_se: Some(0.00016),
        top1: 0.9,
        top1_se: None,
        weights_kl: None,
        weights_kl_se: None,
        predicted_kl: (kind == Kind::Budget).then_some(kl * 0.9),
        measured_kl: (kind == Kind::Budget).then_some(kl),
    };
    let costs = BTreeMap::from([(Storage::INT4, 1e-3), (Storage::INT8, 0.0)]);
    Findings {
        frontier: Frontier {
            model: "a <model>".into(),
            corpus: "text".into(),
            fp32_bytes: 8000,
            ppl_fp32: 20.0,
            ppl_fp32_se: Some(0.59),
            bits_per_byte_fp32: None,
            bits_per_byte_fp32_se: None,
            errors_by: Some("61 articles".into()),
            rows: vec![
                row("budget 8x", Kind::Budget, 1000, 0.02),
                row("uniform-int4", Kind::Uniform, 1100, 0.03),
                // A loss of zero, which has no logarithm.
                row("budget 4x", Kind::Budget, 2000, 0.0),
            ],
            ablation: vec![Ablation {
                steps: "round to nearest".into(),
                blob_bytes: 1100,
                ppl_rise_percent: 9.0,
                ppl_rise_percent_se: None,
                kl: 0.1,
                kl_se: None,
            }],
            comparisons: Vec::new(),
            general: Vec::new(),
            captions: Captions::default(),
            seconds: 0.0,
        },
        sensitivities: BTreeMap::from([("v.weight".to_owned(), costs)]),
        blobs: vec![("static".into(), Part::ALL.map(|part| (part, 100)).into())],
    }
}

#[test]
fn every_plot_is_a_picture() {
    let plots = plots(&findings());
    assert_eq!(plots.len(), 5);
    for plot in &plots {
        assert!(plot.svg.starts_with("<svg") && plot.svg.ends_with("</svg>\n"), "{}", plot.name);
        let png = png(&plot.svg).expect("an SVG can be rendered");
        assert!(png.starts_with(b"\x89PNG"));
        // An image without visible text would be far smaller.
        assert!(png.len() > 3000, "{}: {} bytes", plot.name, png.len());
    }
    assert!(plots[0].svg.contains("uniform-int4"));
}

#[test]
fn the_page_needs_nothing_beside_itself() {
    let findings = findings();
    let page = page(&findings, &plots(&findings));
    assert!(page.contains("a &lt;model&gt;") && page.matches("<svg").count() == 5);
    for figure in
        ["20.000 ± 0.590 on text", "errors by 61 articles", "0.02000 ± 0.00016", "0.10000 ± –"]
    {
        assert!(page.contains(figure), "{figure}: {page}");
    }
    let links = page.replace("http://www.w3.org/2000/svg", "");
    assert!(!links.contains("http") && !links.contains("src="));
}

#[test]
fn text_has_every_row() {
    let text = text(&findings());
    for part in [
        "+10.00 ± 0.25",
        "± 0.00016",
        "61 articles",
        "budget 8x",
        "uniform-int4",
        "int4/32",
        "experts, down",
        "predicted KL",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
