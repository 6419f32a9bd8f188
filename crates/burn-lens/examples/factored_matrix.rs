//! TransformerLens's FactoredMatrix demo, step by step, on the bundled model.
//!
//!     cargo run --release --example factored_matrix

use burn::tensor::Distribution;
use burn_lens::{
    analysis::{Circuits, Folding, all_head_labels},
    linalg::{Complex, FactoredMatrix, svd},
    prelude::*,
};

type Done = Result<(), Box<dyn std::error::Error>>;

fn main() -> Done {
    let device = DeviceSpec::cpu().open()?;
    device.seed(50);
    let random = |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);

    println!("# Factored matrices");
    let (a, b) = (random([5, 2]), random([2, 5]));
    let ab = a.clone().matmul(b.clone());
    let factored = FactoredMatrix::new(a, b)?;
    println!("Norms:\nAB: {:.4}\nAB_factored: {:.4}", norm(&ab), factored.norm()?.get(&[]));
    let [left, right, hidden] = [factored.ldim(), factored.rdim(), factored.mdim()];
    println!("Right dim: {right}, left dim: {left}, hidden dim: {hidden}");

    println!("\n# Eigenvalues and singular values");
    // Of the dense matrix as a product with the identity; three of its values are 0.
    let dense = FactoredMatrix::new(ab.clone(), Tensor::<2>::eye(5, &device))?;
    println!("Eigenvalues:\n{}\n{}\n", list(&dense.eigenvalues()?), list(&factored.eigenvalues()?));
    let dense: Vec<f32> = svd(ab.clone())?.s.into_data().try_to_vec()?;
    println!("Singular Values:\n{dense:.4?}\n{:.4?}", factored.singular_values()?.data());

    println!("\n# Multiplication");
    let c = random([5, 300]);
    let (abc, factored_abc) = (ab.clone().matmul(c.clone()), factored.matmul(c)?);
    println!("Unfactored: {:?} {:.3}", abc.dims(), norm(&abc));
    println!("Factored: {:?} {:.3}", factored_abc.shape(), factored_abc.norm()?.get(&[]));
    let [left, right, hidden] = [factored_abc.ldim(), factored_abc.rdim(), factored_abc.mdim()];
    println!("Right dimension: {right}, Left dimension: {left}, Hidden dimension: {hidden}");
    let difference = norm(&(factored.ab().tensor::<2>() - ab));
    println!("AB is what it was: {}", difference < 1e-5);

    model_circuits()
}

/// The copying heads of the bundled model.
fn model_circuits() -> Done {
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
    for (label, (full, ov)) in
        all_head_labels(&circuits.dims()).iter().zip(full_copying.data().iter().zip(copying.data()))
    {
        println!("{label:<5}{full:>8.4} {ov:>8.4}");
    }
    let last = full.lead().iter().map(|len| len - 1).collect::<Vec<_>>();
    println!("\nEigenvalues of the last head's OV: {}", list(&ov.at(&last).eigenvalues()?));
    Ok(())
}

fn norm(m: &Tensor<2>) -> f32 {
    m.clone().powi_scalar(2).sum().sqrt().into_scalar()
}

fn list(values: &burn_lens::linalg::Values<Complex>) -> String {
    let values: Vec<String> = values.data().iter().map(|value| format!("{value:.4}")).collect();
    format!("[{}]", values.join(", "))
}
