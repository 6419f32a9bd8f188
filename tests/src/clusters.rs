//! Clusters of attention: k-means, silhouettes and linear classifiers as in scikit-learn, and
//! what they say of heads that are built to do one thing.

use burn_lens::analysis::{
    AnalysisError,
    clusters::{
        ClusterOptions, Examples, KMeansOptions, LinearExplanation, Quadrants, Role, Rows, Selection,
        attention_clusters, cluster_attention, dominant_literals, k_means, silhouette, silhouette_samples,
        sweep,
    },
};
use burn_lens::prelude::*;
use burn_lens_testkit::{Golden, device, fixture};
use burn_lens_train::in_context::{ModelSize, Problem, Regression, held_out};
use serde_json::Value;

fn golden() -> (Golden, Value) {
    let folder = fixture("icl-clusters");
    let facts = std::fs::read_to_string(folder.join("golden.json")).unwrap();
    (Golden::open(folder.join("golden.safetensors")), serde_json::from_str(&facts).unwrap())
}

fn rows(golden: &Golden, name: &str) -> Rows {
    let width = golden.get(name).shape().to_vec()[1];
    Rows::new(golden.values(name), width).unwrap()
}

fn numbers<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

/// Labels with clusters numbered in the order in which they occur.
fn canonical(labels: &[usize]) -> Vec<usize> {
    let mut seen = Vec::new();
    labels
        .iter()
        .map(|label| {
            seen.iter().position(|other| other == label).unwrap_or_else(|| {
                seen.push(*label);
                seen.len() - 1
            })
        })
        .collect()
}

#[test]
fn k_means_finds_the_clusters_of_scikit_learn() {
    let (golden, facts) = golden();
    for case in facts["kmeans"].as_array().unwrap() {
        let k: usize = numbers(&case["k"]);
        let rows = rows(&golden, &format!("rows{k}"));
        for seed in 0..3 {
            let found = k_means(&rows, &KMeansOptions { k, seed, ..KMeansOptions::default() }).unwrap();
            assert_eq!(found.labels, canonical(&numbers::<Vec<usize>>(&case["labels"])), "k = {k}");
            let inertia: f64 = numbers(&case["inertia"]);
            assert!((found.inertia - inertia).abs() < 1e-9 * inertia, "{} {inertia}", found.inertia);
        }
        let found = k_means(&rows, &KMeansOptions { k, ..KMeansOptions::default() }).unwrap();
        assert_eq!(found, k_means(&rows, &KMeansOptions { k, ..KMeansOptions::default() }).unwrap());
        // Every row is at the nearest center, and centers are means.
        for (row, &label) in rows.iter().zip(&found.labels) {
            let distance = |c: &[f64]| row.iter().zip(c).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
            assert!(found.centers.iter().all(|c| distance(c) >= distance(&found.centers[label]) - 1e-12));
        }
    }
}

#[test]
fn silhouettes_are_those_of_scikit_learn() {
    let (golden, facts) = golden();
    for case in facts["silhouette"].as_array().unwrap() {
        let rows = rows(&golden, case["rows"].as_str().unwrap());
        let labels: Vec<usize> = numbers(&case["labels"]);
        let (score, expected) = (silhouette(&rows, &labels).unwrap(), numbers::<f64>(&case["score"]));
        assert!((score - expected).abs() < 1e-6, "{score} instead of {expected}");
        let first: Vec<f64> = numbers(&case["first"]);
        for (found, expected) in silhouette_samples(&rows, &labels).unwrap().iter().zip(first) {
            assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
        }
    }
}

#[test]
fn explanations_are_those_of_linear_svc() {
    let (golden, facts) = golden();
    for (name, classes) in [("two", 1), ("three", 3)] {
        let x = rows(&golden, &format!("svc/{name}/x"));
        let labels: Vec<usize> =
            golden.values(&format!("svc/{name}/y")).iter().map(|&y| y as usize).collect();
        let found = LinearExplanation::fit(&x, &labels).unwrap();
        assert_eq!(found.coefficients.len(), classes);
        let close = |found: &[f64], expected: &[f64]| {
            assert_eq!(found.len(), expected.len());
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-3), "{found:?} {expected:?}");
        };
        close(&found.coefficients.concat(), &golden.values(&format!("svc/{name}/coef")));
        close(&found.intercepts, &golden.values(&format!("svc/{name}/intercept")));
        assert!((found.accuracy - numbers::<f64>(&facts[&format!("svc/{name}/accuracy")])).abs() < 1e-12);
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, AnalysisError>, reason: &str) {
    let error = result.unwrap_err().to_string();
    assert!(error.contains(reason), "{error}");
}

#[test]
fn degenerate_input_is_said() {
    let same = Rows::new(vec![1.0; 12], 3).unwrap();
    let two = KMeansOptions::default();
    refused(k_means(&same, &two), "only 1 of 4 rows differ");
    refused(k_means(&same, &KMeansOptions { k: 5, ..two }), "4 rows cannot make 5 clusters");
    refused(k_means(&same, &KMeansOptions { k: 0, ..two }), "at least 1");
    assert_eq!(k_means(&same, &KMeansOptions { k: 1, ..two }).unwrap().inertia, 0.0);
    refused(silhouette(&same, &[0; 4]), "2 to 3 clusters of 4 rows, found 1");
    refused(silhouette(&same, &[0, 1, 2, 3]), "found 4");
    refused(silhouette(&same, &[0, 1]), "2 labels do not fit 4 rows");
    assert_eq!(silhouette(&same, &[0, 0, 1, 1]).unwrap(), 0.0);
    refused(LinearExplanation::fit(&same, &[3; 4]), "all 4 rows are of one class");
    refused(Rows::new(vec![0.0, f64::NAN], 2), "row 0 holds NaN");
    refused(Rows::new(vec![0.0; 5], 2), "5 numbers are no rows of 2");
    refused(Quadrants::new(vec![0.0; 9]), "[2n, 2n]");
    // Two different rows, three times each: two clusters, and no more are tried.
    let rows = Rows::new([[0.0, 1.0], [1.0, 0.0]].repeat(3).concat(), 2).unwrap();
    assert_eq!(rows.distinct(), 2);
    refused(k_means(&rows, &KMeansOptions { k: 3, ..two }), "only 2 of 6 rows differ");
}

/// A head that attends, from every position, to the first example (if x₀ < 0) or to itself.
fn switch(x: &[Vec<f64>]) -> Quadrants {
    let side = 2 * x.len();
    let mut pattern = vec![0.0; side * side];
    for query in 0..side {
        let key = if x[query / 2][0] < 0.0 { 0 } else { query };
        // A little elsewhere, so that rows differ.
        pattern[query * side + key] += 0.999;
        pattern[query * side + query / 2] += 0.001;
    }
    Quadrants::new(pattern).unwrap()
}

#[test]
fn a_head_that_looks_at_a_sign_is_found_out() {
    let sign = |bit: usize, i: usize| if i >> bit & 1 == 1 { 1.0 } else { -1.0 };
    let x: Vec<Vec<f64>> = (0..16).map(|i| vec![sign(0, i), sign(1, i), sign(2, i)]).collect();
    let y: Vec<f64> = (0..16).map(|i| sign(3, i)).collect();
    let head = switch(&x);
    let uniform = Quadrants::new(vec![1.0 / 32.0; 32 * 32]).unwrap();
    let layers = vec![vec![uniform.clone(), uniform.clone()], vec![uniform, head.clone()]];
    // With as many clusters as there are rows that differ, each is its own; two are asked for.
    let options = ClusterOptions { k: 2..=2, ..ClusterOptions::default() };
    let found = attention_clusters(&layers, [1, 1], &x, &y, &options).unwrap();
    let first: Vec<usize> = (0..16).filter(|&i| x[i][0] < 0.0).collect();
    assert_eq!(found.x.k, 2);
    let cluster = found.x.clusters.iter().find(|cluster| cluster.members.contains(&first[1])).unwrap();
    assert!(first[1..].iter().all(|member| cluster.members.contains(member)), "{cluster:?}");
    // x₀ has by far the largest coefficient.
    let w = &found.x.explanation.coefficients[0];
    assert!(w[0].abs() > 3.0 * w[1].abs().max(w[2].abs()), "{w:?}");
    assert_eq!(found.y.explanation.coefficients[0].len(), 4);
    // Rows of pathways sum to one, in every layer.
    assert_eq!(found.pathways.len(), 2);
    for row in found.pathways.iter().flatten() {
        assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{row:?}");
    }
    refused(attention_clusters(&layers, [2, 0], &x, &y, &options), "layer 2");
    refused(attention_clusters(&layers, [0, 2], &x, &y, &options), "head 2");
    refused(attention_clusters(&layers, [1, 1], &x[1..], &y, &options), "16 inputs");
    refused(attention_clusters(&layers, [0, 0], &x, &y, &options), "16 rows, 1 of them different");
}

#[test]
fn quadrants_are_parts_of_the_pattern() {
    let pattern: Vec<f64> = (0..16).map(f64::from).collect();
    let quadrants = Quadrants::new(pattern).unwrap();
    assert_eq!(quadrants.part(Role::X, Role::X), [0.0, 2.0, 8.0, 10.0]);
    assert_eq!(quadrants.part(Role::X, Role::Y), [1.0, 3.0, 9.0, 11.0]);
    assert_eq!(quadrants.part(Role::Y, Role::X), [4.0, 6.0, 12.0, 14.0]);
    assert_eq!(quadrants.rows(Role::Y).unwrap().row(1), [12.0, 13.0, 14.0, 15.0]);
}

#[test]
fn literals_and_pathways_by_hand() {
    let inputs = Rows::new(vec![1.0, -1.0, 1.0, -2.0, 0.0, 3.0, -1.0, -1.0], 2).unwrap();
    let literals = dominant_literals(&inputs, &[0, 1, 2], 0.9);
    assert_eq!(literals.len(), 1);
    assert_eq!((literals[0].input, literals[0].positive), (0, true));
    assert!((literals[0].base - 0.75).abs() < 1e-12);
    let shared = dominant_literals(&inputs, &[0, 1, 3], 0.9);
    assert_eq!((shared[0].input, shared[0].positive, shared[0].share), (1, false, 1.0));
    assert!(dominant_literals(&inputs, &[], 0.9).is_empty());

    let pattern = [1.0, 0.0, 0.0, 0.5, 0.5, 0.0, 0.2, 0.3, 0.5];
    assert_eq!(cluster_attention(&pattern, &[0, 1, 0], 2), [[0.85, 0.15], [0.5, 0.5]]);
}

#[test]
fn a_sweep_is_every_place_in_one_call() {
    let problem = Problem::Regression(Regression { dimensions: 3, examples: 8, noise: 0.1 });
    let config = problem.model(ModelSize { n_layers: 2, n_heads: 2, d_model: 16 }).unwrap();
    let model = |seed| {
        let params = burn_lens::models::random_parameters(&config, seed, &device(), FloatType::F32);
        HookedTransformer::new(config.clone(), params).unwrap()
    };
    let (first, second) = (model(0), model(1));
    let episodes = held_out(&problem, 0, 3).unwrap();
    let examples = Examples {
        input: problem.batch(&episodes).input(&first),
        x: episodes.iter().map(|episode| episode.x.clone()).collect(),
        y: episodes.iter().map(|episode| episode.y.clone()).collect(),
    };
    let checkpoints: [(&str, &dyn HookedModel); 2] = [("first", &first), ("second", &second)];
    let options = ClusterOptions { n_init: 2, ..ClusterOptions::default() };
    let found = sweep(&checkpoints, &examples, &Selection::default(), &options).unwrap();
    assert_eq!(found.len(), 2 * 3 * 2 * 2);
    for place in &found {
        // Every pattern, in every panel: rows are distributions over what came before.
        for (query, row) in place.pattern.pattern().chunks(16).enumerate() {
            assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-5);
            assert!(row[query + 1..].iter().all(|&x| x == 0.0));
        }
        let clusters = place.clusters.as_ref().unwrap();
        assert!((2..=7).contains(&clusters.x.k) && clusters.x.labels.len() == 8);
        let best = clusters.x.silhouettes.iter().map(|(_, s)| *s).fold(f64::MIN, f64::max);
        assert_eq!(clusters.x.silhouettes.iter().find(|(k, _)| *k == clusters.x.k).unwrap().1, best);
    }
    let one = Selection { layers: vec![1], heads: vec![0], samples: vec![2] };
    let only = sweep(&checkpoints[..1], &examples, &one, &options).unwrap();
    assert_eq!((only.len(), only[0].layer, only[0].head, only[0].sample), (1, 1, 0, 2));
    assert_eq!(only[0].clusters.as_ref().unwrap(), found[2 * 4 + 2].clusters.as_ref().unwrap());
    refused(
        sweep(&checkpoints, &examples, &Selection { layers: vec![2], ..one.clone() }, &options),
        "layer 2",
    );
    refused(sweep(&checkpoints, &examples, &Selection { samples: vec![3], ..one }, &options), "sample 3");
}
