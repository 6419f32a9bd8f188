//! Circuits found by pruning and by score, on the bundled model.

use std::ops::ControlFlow;

use burn_lens::analysis::interventions::{EdgeGradients, EdgeRuns};

use crate::causal::{Pair, near};

/// The circuit that pruning leaves does most of what the model does, with few of its edges.
#[test]
fn pruning_keeps_the_circuit() {
    let pair = Pair::open();
    let engine = pair.on(&pair.clean);
    let runs = EdgeRuns::new(&engine, &(&pair.corrupt).into()).unwrap();
    let mut go = |_: usize, _: usize| ControlFlow::Continue(());
    let circuit = runs.prune(&[0.3], &mut go).unwrap().circuits.remove(0);
    assert!(circuit.edges.len() * 4 < circuit.of, "{} of {}", circuit.edges.len(), circuit.of);
    assert!(circuit.faithfulness() > 0.8, "{}", circuit.faithfulness());
    let has = |from: &str, to: &str| circuit.edges.iter().any(|edge| edge.from == from && edge.to == to);
    // What the name is goes from its token through the token-before head into the mover's values.
    for (from, to) in [("embed", "L0H0.v"), ("L0H0", "L1H2.v"), ("L1H2", "logits")] {
        assert!(has(from, to), "{:?}", circuit.edges);
    }
    let dot = circuit.to_dot();
    assert_eq!(dot.matches("->").count(), circuit.edges.len());
    assert!(dot.contains(r#""L0H0" -> "L1H2" [headlabel="v""#), "{dot}");
    let json = serde_json::to_value(&circuit).unwrap();
    assert_eq!(json["edges"].as_array().unwrap().len(), circuit.edges.len());
}

/// Each threshold of a sweep leaves what it leaves alone, for less work; and one that keeps everything
/// is the model.
#[test]
fn thresholds_share_their_runs() {
    let pair = Pair::open();
    let engine = pair.on(&pair.clean);
    let runs = EdgeRuns::new(&engine, &(&pair.corrupt).into()).unwrap();
    let mut go = |_: usize, _: usize| ControlFlow::Continue(());
    let thresholds = [2.0, 0.3, 0.6];
    let sweep = runs.prune(&thresholds, &mut go).unwrap();
    let alone = thresholds.map(|threshold| runs.prune(&[threshold], &mut go).unwrap());
    for (circuit, alone) in sweep.circuits.iter().zip(&alone) {
        assert_eq!(*circuit, alone.circuits[0]);
    }
    let edges = sweep.circuits.iter().map(|circuit| circuit.edges.len()).collect::<Vec<_>>();
    assert!(edges[0] <= edges[2] && edges[2] <= edges[1], "{edges:?}");
    let each: usize = alone.iter().map(|sweep| sweep.runs).sum();
    assert!(sweep.runs < each * 2 / 3, "{} of {each}", sweep.runs);
    for wrong in [&[][..], &[-1.0], &[0.3, f64::NAN]] {
        assert!(runs.prune(wrong, &mut go).unwrap_err().to_string().contains("thresholds"));
    }
    let error = runs.prune(&[0.3], &mut |_, _| ControlFlow::Break(())).unwrap_err();
    assert!(error.to_string().contains("interrupted"), "{error}");
}

/// Edges by score: each circuit is what cutting the others, one by one, leaves; edges on no path from
/// the embedding to the logits carry nothing.
#[test]
fn edges_are_selected_by_score() {
    let pair = Pair::open();
    let engine = pair.on(&pair.clean);
    let other = (&pair.corrupt).into();
    let runs = EdgeRuns::new(&engine, &other).unwrap();
    let scores = engine.edge_attribution(&other, EdgeGradients::Integrated(3)).unwrap();
    let thresholds = [0.0, 0.2, 1.0, 1e6];
    let sweep = runs.select(&scores, &thresholds).unwrap();
    let nodes = runs.nodes();
    for (circuit, threshold) in sweep.circuits.iter().zip(thresholds) {
        assert_eq!(circuit.threshold, Some(threshold));
        let place = |from: &str, to: &str| {
            let from = nodes.senders.iter().position(|part| part.to_string() == from).unwrap();
            (from, nodes.receivers.iter().position(|part| part.to_string() == to).unwrap())
        };
        let width = scores.receivers.len();
        let kept = nodes.edges().into_iter().map(|(from, to)| (from, to, scores.scores[from * width + to]));
        let kept: Vec<_> = kept.filter(|(.., score)| score.abs() >= threshold).collect();
        // With those that are on no path: the same metric.
        let with = runs.circuit(&kept).unwrap();
        near(circuit.metric[1], with.metric[1]);
        for edge in &circuit.edges {
            assert!(kept.iter().any(|&(from, to, _)| (from, to) == place(&edge.from, &edge.to)), "{edge:?}");
        }
        assert!(circuit.edges.len() <= kept.len());
    }
    near(sweep.circuits[0].faithfulness(), 1.0);
    let [none, whole] = [&sweep.circuits[3], &sweep.circuits[0]];
    assert!(none.edges.is_empty() && none.faithfulness().abs() < 1e-4);
    near(whole.metric[0], pair.clean_value());
    // All but nothing of the answer comes through a few edges.
    assert!(sweep.circuits[1].edges.len() * 4 < sweep.circuits[1].of, "{}", sweep.circuits[1].edges.len());
}
