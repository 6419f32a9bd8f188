//! TransformerLens's FactoredMatrix demo, step by step, on the bundled model: the same random matrices,
//! so the same numbers as there, and its figures in a page.
//!
//!     cargo run --release --example factored_matrix

use std::collections::BTreeMap;

use burn::tensor::TensorData;
use burn_lens::{
    analysis::{Circuits, Folding, all_head_labels},
    io::{read_safetensors, write_atomically},
    linalg::{Complex, FactoredMatrix, Values, svd},
    prelude::*,
};
use burn_lens_viz::{Grid, Page, Point, Scatter, Section};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What `torch.manual_seed(50)` gave the demo: `oracle/factored_matrix_demo.py`.
const INPUTS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/factored-matrix-demo/inputs.safetensors");

fn main() -> Result<()> {
    matrices()?;
    let page = model_circuits()?.to_html()?;
    write_atomically("factored_matrix.html", |file| file.write_all(page.as_bytes()))?;
    println!("\nwrote factored_matrix.html");
    Ok(())
}

/// A product of two small matrices, beside the dense matrix that it stands for.
fn matrices() -> Result<()> {
    let device = DeviceSpec::cpu().open()?;
    let inputs: BTreeMap<String, TensorData> = read_safetensors(INPUTS)?;
    let [a, b, c] = ["A", "B", "C"].map(|name| Tensor::<2>::from_data(inputs[name].clone(), &device));

    println!("# Factored matrices");
    let ab = a.clone().matmul(b.clone());
    let factored = FactoredMatrix::new(a, b)?;
    println!("Norms:\nAB: {:.4}\nAB_factored: {:.4}", norm(&ab), factored.norm()?.get(&[]));
    let [left, right, hidden] = [factored.ldim(), factored.rdim(), factored.mdim()];
    println!("Right dim: {right}, left dim: {left}, hidden dim: {hidden}");

    println!("\n# Eigenvalues and singular values");
    // The dense matrix as a product with the identity; three of its values are 0.
    let dense = FactoredMatrix::new(ab.clone(), Tensor::<2>::eye(5, &device))?;
    println!("Eigenvalues:\n{}\n{}\n", list(&dense.eigenvalues()?), list(&factored.eigenvalues()?));
    let dense: Vec<f32> = svd(ab.clone())?.s.into_data().try_to_vec()?;
    println!("Singular Values:\n{dense:.4?}\n{:.4?}", factored.singular_values()?.data());

    println!("\n# Multiplication");
    let (abc, factored_abc) = (ab.clone().matmul(c.clone()), factored.matmul(c)?);
    println!("Unfactored: {:?} {:.3}", abc.dims(), norm(&abc));
    println!("Factored: {:?} {:.3}", factored_abc.shape(), factored_abc.norm()?.get(&[]));
    let [left, right, hidden] = [factored_abc.ldim(), factored_abc.rdim(), factored_abc.mdim()];
    println!("Right dimension: {right}, Left dimension: {left}, Hidden dimension: {hidden}");
    println!("AB is what it was: {}", norm(&(factored.ab().tensor::<2>() - ab)) < 1e-5);
    Ok(())
}

/// The copying heads of the bundled model.
fn model_circuits() -> Result<Page> {
    println!("\n# The OV circuits of a model");
    let lens = from_pretrained(burn_lens::DEMO, &LoadOptions::default())?;
    let circuits = Circuits::new(&lens.model, Folding::default())?;
    println!("({})", circuits.notes().join("; "));
    let ov = circuits.ov()?;
    println!("{ov}");
    let eigenvalues = ov.eigenvalues()?;
    println!("eigenvalues: {:?}", eigenvalues.shape());
    let copying = eigenvalues.positive_share();

    println!("\n# The full OV circuits");
    let full = circuits.full_ov()?;
    println!("{full}");
    let full_eigenvalues = full.eigenvalues()?;
    println!("eigenvalues: {:?}", full_eigenvalues.shape());
    let full_copying = full_eigenvalues.positive_share();

    println!("\nCopying scores:\nhead  full OV       OV");
    let labels = all_head_labels(&circuits.dims());
    for (label, (full, ov)) in labels.iter().zip(full_copying.data().iter().zip(copying.data())) {
        println!("{label:<5}{full:>8.4} {ov:>8.4}");
    }
    let last: Vec<usize> = full.lead().iter().map(|len| len - 1).collect();
    let points = eigenvalues.at(&last).iter().map(|value| point(value.re, value.im, format!("{value:.4}")));
    let both = labels.iter().zip(full_copying.data().iter().zip(copying.data()));
    let both = both.map(|(label, (&full, &ov))| point(full, ov, format!("{label}: {full:.4}, {ov:.4}")));
    let figures = vec![
        Section::new("OV copying score of each head", "Σ Re λ / Σ |λ|").grid(by_head(&copying)),
        Section::new("Eigenvalues of the last head", "").scatter(scatter(["real", "imaginary"], points)),
        Section::new("Full OV copying score of each head", "").grid(by_head(&full_copying)),
        Section::new("The two scores", "").scatter(scatter(["full OV", "OV"], both)),
    ];
    Ok(Page { title: "FactoredMatrix".to_owned(), sections: figures, ..Page::default() })
}

fn by_head(values: &Values) -> Grid {
    let names = |count: usize| (0..count).map(|at| at.to_string()).collect();
    Grid::heat_map(["layer", "head"], names(values.shape()[0]), names(values.shape()[1]), values.data())
}

fn scatter(axes: [&str; 2], points: impl Iterator<Item = Point>) -> Scatter {
    let [x_axis, y_axis] = axes.map(str::to_owned);
    Scatter { x_axis, y_axis, points: points.collect() }
}

fn point(x: f64, y: f64, note: String) -> Point {
    Point { x, y, note }
}

fn norm(m: &Tensor<2>) -> f32 {
    m.clone().powi_scalar(2).sum().sqrt().into_scalar()
}

fn list(values: &Values<Complex>) -> String {
    let values: Vec<String> = values.data().iter().map(|value| format!("{value:.4}")).collect();
    format!("[{}]", values.join(", "))
}
