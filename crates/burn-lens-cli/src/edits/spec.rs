//! The text of an intervention: `NAME[:head=3,pos=2:7]=OPERAND`.

use std::{path::PathBuf, str::FromStr};

use burn_lens::tensor::Slice;

/// Where an intervention applies.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Place {
    /// A hook's name, or a glob.
    pub(crate) name: String,
    pub(crate) head: Option<Slice>,
    pub(crate) pos: Option<Slice>,
    pub(crate) neuron: Option<Slice>,
}

/// `--ablate`
#[derive(Clone, Debug)]
pub(crate) struct Ablation {
    pub(crate) text: String,
    pub(crate) place: Place,
    /// The mean instead of zero.
    pub(crate) mean: bool,
}

/// `--scale`
#[derive(Clone, Debug)]
pub(crate) struct Scaling {
    pub(crate) text: String,
    pub(crate) place: Place,
    pub(crate) factor: f64,
}

/// `--add`
#[derive(Clone, Debug)]
pub(crate) struct Addition {
    pub(crate) text: String,
    pub(crate) place: Place,
    pub(crate) file: PathBuf,
    /// The only one of the file if `None`.
    pub(crate) tensor: Option<String>,
    pub(crate) factor: f64,
}

/// Text that is not an intervention.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpecError {
    #[error("the hook's name is missing; example: {0}")]
    NoName(&'static str),
    #[error("`{part}` is not KEY=SLICE with KEY one of head, pos, neuron; example: {example}")]
    Part { part: String, example: &'static str },
    #[error("`{key}` is given twice")]
    Twice { key: String },
    #[error("`{key}={value}`: `{value}` is not an index (3, -1), a range (2:7) or a list (1,4)")]
    Slice { key: String, value: String },
    #[error("unknown ablation `{0}`: expected zero or mean, as in z3:head=1=mean")]
    Ablation(String),
    #[error("the factor is missing: write NAME=FACTOR, as in z3:head=1=0.5")]
    NoFactor,
    #[error("factor `{0}` is not a number")]
    Factor(String),
    #[error("the file is missing: write NAME=FILE.safetensors, as in resid_post3=steer.safetensors")]
    NoFile,
    #[error("`{0}` is not FILE.safetensors[:TENSOR][*FACTOR]")]
    File(String),
}

impl FromStr for Ablation {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let (place, operand) = place(text, "z3:head=1=zero")?;
        let mean = match operand {
            None | Some("zero") => false,
            Some("mean") => true,
            Some(other) => return Err(SpecError::Ablation(other.to_owned())),
        };
        Ok(Self { text: text.to_owned(), place, mean })
    }
}

impl FromStr for Scaling {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let (place, operand) = place(text, "post3:neuron=7=0.5")?;
        let factor = factor(operand.ok_or(SpecError::NoFactor)?)?;
        Ok(Self { text: text.to_owned(), place, factor })
    }
}

impl FromStr for Addition {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        const END: &str = ".safetensors";
        let (place, operand) = place(text, "resid_post3:pos=-1=steer.safetensors*4")?;
        let operand = operand.ok_or(SpecError::NoFile)?;
        let bad = || SpecError::File(operand.to_owned());
        let end = operand.find(END).ok_or_else(bad)? + END.len();
        let (file, rest) = operand.split_at(end);
        let (tensor, times) = match rest.rsplit_once('*') {
            Some((tensor, times)) => (tensor, factor(times)?),
            None => (rest, 1.0),
        };
        let tensor = match tensor.strip_prefix(':') {
            Some(name) if !name.is_empty() => Some(name.to_owned()),
            None if tensor.is_empty() => None,
            _ => return Err(bad()),
        };
        Ok(Self { text: text.to_owned(), place, file: PathBuf::from(file), tensor, factor: times })
    }
}

fn factor(text: &str) -> Result<f64, SpecError> {
    let number = text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
    number.ok_or_else(|| SpecError::Factor(text.to_owned()))
}

/// The place, and what follows its last `=`.
fn place<'t>(text: &'t str, example: &'static str) -> Result<(Place, Option<&'t str>), SpecError> {
    let end = text.find([':', '=']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.trim().is_empty() {
        return Err(SpecError::NoName(example));
    }
    let mut place = Place { name: name.trim().to_owned(), ..Place::default() };
    let Some(mut rest) = rest.strip_prefix(':') else {
        return Ok((place, rest.strip_prefix('=')));
    };
    loop {
        let part = || SpecError::Part { part: rest.to_owned(), example };
        let (key, after) = rest.split_once('=').ok_or_else(part)?;
        let slot = match key.trim() {
            "head" => &mut place.head,
            "pos" => &mut place.pos,
            "neuron" => &mut place.neuron,
            _ => return Err(part()),
        };
        // A list's commas and the comma before the next key look alike; letters tell them apart.
        let end = after.find(|c: char| !c.is_ascii_digit() && !",:- ".contains(c)).unwrap_or(after.len());
        let (value, next) = after.split_at(end);
        let is_key = !next.is_empty() && !next.starts_with('=');
        let wrong = || {
            let value = after.split('=').next().unwrap_or(after).to_owned();
            SpecError::Slice { key: key.to_owned(), value }
        };
        let value = if is_key { value.strip_suffix(',').ok_or_else(wrong)? } else { value };
        let slice = value.parse().map_err(|_| wrong())?;
        if slot.replace(slice).is_some() {
            return Err(SpecError::Twice { key: key.trim().to_owned() });
        }
        if !is_key {
            return Ok((place, next.strip_prefix('=')));
        }
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn ablation(text: &str) -> (String, [Option<String>; 3], bool) {
        let Ablation { place, mean, .. } = text.parse().unwrap();
        let text = |slice: Option<Slice>| slice.map(|slice| slice.to_string());
        (place.name, [text(place.head), text(place.pos), text(place.neuron)], mean)
    }

    #[expect(clippy::unnecessary_wraps, reason = "it stands for the option that it is compared with")]
    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn places() {
        assert_eq!(ablation("z3"), ("z3".to_owned(), [None, None, None], false));
        assert_eq!(
            ablation("blocks.*.attn.hook_z=mean"),
            ("blocks.*.attn.hook_z".to_owned(), [None, None, None], true)
        );
        assert_eq!(ablation("z3:head=1").1, [some("1"), None, None]);
        assert_eq!(ablation("z3:head=1,4,pos=-1=mean").1, [some("1,4"), some("-1"), None]);
        assert_eq!(ablation("z3:pos=2:7,head=0=zero").1, [some("0"), some("2:7"), None]);
        assert_eq!(ablation("post3:neuron=0:10:2,pos=-3:").1, [None, some("-3:"), some("0:10:2")]);
        assert_eq!(ablation("{k,v}3:head=1").0, "{k,v}3");
    }

    #[test]
    fn additions() {
        let check = |text: &str, file: &str, tensor: Option<&str>, factor: f64| {
            let addition: Addition = text.parse().unwrap();
            let found = (addition.file.to_str().unwrap(), addition.tensor.as_deref(), addition.factor);
            assert_eq!(found, (file, tensor, factor), "{text}");
        };
        check("resid_post3=a.safetensors", "a.safetensors", None, 1.0);
        check("resid_post3:pos=5=dir/a b.safetensors*-2.5", "dir/a b.safetensors", None, -2.5);
        check("resid_post3=C:\\v.safetensors:x=y*3", "C:\\v.safetensors", Some("x=y"), 3.0);
    }

    #[test]
    fn errors_name_the_part() {
        let message = |text: &str| text.parse::<Ablation>().unwrap_err().to_string();
        assert!(message(":head=1").contains("name is missing"));
        assert!(message("z3:heads=1").contains("`heads=1` is not KEY=SLICE"));
        assert!(message("z3:head").contains("`head` is not KEY=SLICE"));
        assert!(message("z3:head=x").contains("`head=x`: `x` is not an index"));
        assert!(message("z3:head=").contains("`head=`"));
        assert!(message("z3:head=1,head=2").contains("given twice"));
        assert!(message("z3:head=1=none").contains("unknown ablation `none`"));
        assert!(message("z3=0").contains("expected zero or mean"));
        assert_eq!("z3:head=1".parse::<Scaling>().unwrap_err(), SpecError::NoFactor);
        assert_eq!("z3=half".parse::<Scaling>().unwrap_err(), SpecError::Factor("half".to_owned()));
        assert_eq!("z3".parse::<Addition>().unwrap_err(), SpecError::NoFile);
        assert!(matches!("z3=a.bin".parse::<Addition>(), Err(SpecError::File(_))));
        assert!(matches!("z3=a.safetensors:".parse::<Addition>(), Err(SpecError::File(_))));
        assert!(matches!("z3=a.safetensors*x".parse::<Addition>(), Err(SpecError::Factor(_))));
    }
}
