//! Small models, dictionaries and tokens.

use burn_lens_hooks::{HookPoint, HookedModel as _};
use burn_lens_io::Checkpoint;
use burn_lens_models::{HookedTransformer, architecture_config, load_parameters};
use burn_lens_sae::features::{
    FeatureOptions, FeatureRun, FeatureSet, FeatureSource, SequenceOptions, SparseRows, StoreError,
    TokenTable, Window, get_feature_data,
};
use burn_lens_tensor::{
    FloatType,
    burn::tensor::{Tensor, TensorData},
};
use burn_lens_testkit::{device, fixture};
use serde::Serialize;

/// A fixture's model, unprocessed.
pub(crate) fn model(name: &str, dtype: FloatType) -> HookedTransformer {
    let folder = fixture(name);
    let config = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let (architecture, config) = architecture_config(&config).unwrap();
    let mut weights = Checkpoint::open(&folder).unwrap();
    let params = load_parameters(architecture, &config, &mut weights, dtype, &device()).unwrap();
    HookedTransformer::new(config, params).unwrap()
}

/// Numbers that look random, from -1 to 1.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    pub(crate) fn number(&mut self) -> f32 {
        self.word() as f32 / (1_u64 << 30) as f32 - 1.0
    }

    pub(crate) fn numbers(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.number()).collect()
    }
}

/// A standard dictionary: `relu((x − b_dec) W_enc + b_enc)`.
#[derive(Clone)]
pub(crate) struct Sae {
    pub(crate) name: String,
    pub(crate) hook: HookPoint,
    pub(crate) d_in: usize,
    /// `[feature, d_in]`
    pub(crate) w_enc: Vec<f32>,
    pub(crate) b_enc: Vec<f32>,
    /// `[feature, d_in]`
    pub(crate) w_dec: Vec<f32>,
    pub(crate) b_dec: Vec<f32>,
}

impl Sae {
    /// A random one, whose features are active at some of the tokens.
    pub(crate) fn random(hook: HookPoint, d_in: usize, n_features: usize, seed: u64) -> Self {
        let mut random = Random(seed);
        let w_enc = random.numbers(n_features * d_in);
        let b_enc = random.numbers(n_features).into_iter().map(|b| 0.3 * b - 0.2).collect();
        let w_dec = random.numbers(n_features * d_in);
        let b_dec = random.numbers(d_in).into_iter().map(|b| 0.1 * b).collect();
        Self { name: format!("random-{seed}"), hook, d_in, w_enc, b_enc, w_dec, b_dec }
    }

    fn matrix(&self, values: &[f32]) -> Tensor<2> {
        let data = TensorData::new(values.to_vec(), [values.len() / self.d_in, self.d_in]);
        Tensor::from_data(data, &device())
    }

    fn rows(&self, values: &[f32], features: &[usize]) -> Tensor<2> {
        let row = |&feature: &usize| &values[feature * self.d_in..(feature + 1) * self.d_in];
        self.matrix(&features.iter().flat_map(row).copied().collect::<Vec<_>>())
    }
}

impl FeatureSource for Sae {
    fn name(&self) -> &str {
        &self.name
    }

    fn n_features(&self) -> usize {
        self.b_enc.len()
    }

    fn hook_in(&self) -> HookPoint {
        self.hook
    }

    fn d_in(&self) -> usize {
        self.d_in
    }

    fn encode(&self, x: Tensor<3>) -> Result<SparseRows, StoreError> {
        let [batch, pos, d_in] = x.dims();
        let x = x.reshape([batch * pos, d_in]) - self.matrix(&self.b_dec);
        let b_enc = Tensor::<1>::from_floats(self.b_enc.as_slice(), &device());
        let pre = x.matmul(self.matrix(&self.w_enc).transpose()) + b_enc.unsqueeze();
        let values = pre.into_data().try_into_vec_as::<f32>()?;
        let mut rows = SparseRows::default();
        for row in values.chunks_exact(self.n_features()) {
            // NaN is an activation too: it is for the extraction to report it.
            rows.push_row((0..).zip(row.iter().copied()).filter(|(_, x)| x.is_nan() || *x > 0.0));
        }
        Ok(rows)
    }

    fn directions(&self, features: &[usize]) -> Result<Tensor<2>, StoreError> {
        Ok(self.rows(&self.w_dec, features))
    }

    fn readers(&self, features: &[usize]) -> Result<Option<Tensor<2>>, StoreError> {
        Ok(Some(self.rows(&self.w_enc, features)))
    }
}

/// Random prompts.
pub(crate) fn prompts(
    model: &HookedTransformer,
    n_prompts: usize,
    n_positions: usize,
    seed: u64,
) -> TokenTable {
    let d_vocab = model.dims().d_vocab as u64;
    let mut random = Random(seed);
    let ids: Vec<Vec<i64>> = (0..n_prompts)
        .map(|_| (0..n_positions).map(|_| (random.word() % d_vocab) as i64).collect())
        .collect();
    TokenTable::new(&ids, None).unwrap()
}

/// Small groups, and windows that fit short prompts.
pub(crate) fn options() -> FeatureOptions {
    FeatureOptions {
        batch_prompts: 3,
        n_logit_rows: 4,
        sequences: SequenceOptions {
            window: Window::Around { before: 3, after: 2 },
            n_top: 6,
            n_intervals: 4,
            n_per_interval: 2,
            distinct: false,
            n_hover: 3,
            ..SequenceOptions::default()
        },
        ..FeatureOptions::default()
    }
}

/// The data of all features.
pub(crate) fn extract(
    model: &HookedTransformer,
    source: &dyn FeatureSource,
    tokens: &TokenTable,
    options: &FeatureOptions,
) -> FeatureSet {
    let run = FeatureRun { model, model_name: "test", source, source_b: None, tokens, options };
    get_feature_data(&run).unwrap()
}

/// Checks that what was written and read back is the same, every number to the last bit.
#[track_caller]
pub(crate) fn comes_back<T: Serialize>(written: &T, read: &T) {
    let text = |data: &T| serde_json::to_string(data).unwrap();
    assert_eq!(text(written), text(read));
}
