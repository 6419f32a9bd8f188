//! The language is what it says, and its tokenizer spells it.

use std::fs;

use burn_lens_io::{TokenOptions, Tokenizer};
use burn_lens_models::{architecture_config, to_config_json};
use burn_lens_train::{
    Batches, TrainError,
    language::{BOS, Language, Task, demo_config, demo_parameters, evaluate},
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

#[test]
fn sentences_read_as_text_and_their_answers_follow() {
    let (language, mut rng) = (Language::new(0), ChaCha8Rng::seed_from_u64(1));
    for _ in 0..200 {
        for task in Task::ALL {
            let piece = language.piece(task, &mut rng);
            let text = language.words().text(&piece.tokens);
            assert!(!text.contains('<') || task == Task::Repeats, "{text}");
            assert_eq!(piece.tokens.len(), piece.weights.len());
            assert!(!piece.answers.is_empty(), "{text}");
            for &answer in &piece.answers {
                assert!(piece.weights[answer] > 0.1, "{text}");
                follows(task, &language.words().text(&piece.tokens[..=answer]));
            }
        }
    }
}

#[test]
fn both_orders_of_names_occur() {
    let (language, mut rng) = (Language::new(0), ChaCha8Rng::seed_from_u64(1));
    let first_is_io = (0..400).filter(|_| {
        let piece = language.piece(Task::IndirectObject, &mut rng);
        let io = piece.tokens[piece.answers[0]];
        let earlier = piece.tokens.iter().position(|&token| token == io).unwrap();
        let names =
            piece.tokens.iter().position(|&token| piece.tokens.iter().filter(|&&t| t == token).count() == 2);
        names == Some(earlier)
    });
    let share = first_is_io.count();
    assert!((150..250).contains(&share), "{share} of 400");
}

#[test]
fn batches_depend_on_seed_and_step_alone() {
    let (mut a, mut b) = (Language::new(7), Language::new(7));
    let _ = b.batch(3);
    for step in 0..6 {
        let batch = a.batch(step);
        assert_eq!(batch, b.batch(step));
        assert_eq!(
            (batch.tokens.len(), batch.weights.len()),
            (batch.batch * batch.pos, batch.batch * batch.pos)
        );
        assert!(
            batch
                .tokens
                .chunks(batch.pos)
                .all(|row| row[0] == BOS && row[1..].iter().all(|&token| token > 1))
        );
    }
    assert_ne!(a.batch(0), Language::new(8).batch(0));
    assert_ne!(a.batch(0).tokens, a.batch(4).tokens);
}

#[test]
fn the_tokenizer_spells_the_language() {
    let language = Language::new(0);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tokenizer.json"), language.words().tokenizer_json()).unwrap();
    fs::write(folder.path().join("tokenizer_config.json"), language.words().tokenizer_config_json(128))
        .unwrap();
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(tokenizer.vocab_size(), language.words().len());
    let specials = [tokenizer.bos(), tokenizer.eos(), tokenizer.pad(), tokenizer.unk()];
    assert_eq!(specials, [Some(0), Some(0), Some(0), Some(1)]);

    let text = "When Mary and John went to the store , John gave a drink to Mary .";
    let ids =
        |text: &str| tokenizer.to_tokens(&[text], TokenOptions::prepend_bos(false)).unwrap().ids.remove(0);
    assert_eq!(ids(text), language.words().ids(text));
    assert_eq!(ids("When Mary and John went to the store, John gave a drink to Mary."), ids(text));
    assert_eq!(tokenizer.to_string(&ids(text)).unwrap(), text);
    assert_eq!(ids("([ ]{})"), language.words().ids("( [ ] { } )"));
    assert_eq!(ids("<bos> Mary met"), [0, language.words().id("Mary"), language.words().id("met")]);
    assert_eq!(ids("Mary xylophone"), [language.words().id("Mary"), 1]);
    assert_eq!(tokenizer.to_single_token(" Mary").unwrap(), language.words().id("Mary"));
    let pieces = tokenizer.to_str_tokens("The capital of France is", Some(true)).unwrap();
    let pieces: Vec<String> = pieces.into_iter().map(|piece| piece.text).collect();
    assert_eq!(pieces, ["<bos>", "The", " capital", " of", " France", " is"]);
    assert_eq!(tokenizer.to_single_str_token(language.words().id("Paris")).unwrap().text, " Paris");
}

#[test]
fn the_demo_configuration_survives_its_file() {
    let config = demo_config(Language::new(0).words());
    let (_, read) = architecture_config(&to_config_json(&config).unwrap()).unwrap();
    assert_eq!(read, config);
}

#[test]
fn training_starts_with_the_outline_of_one_induction_head() -> Result<(), TrainError> {
    let language = Language::new(0);
    let config = demo_config(language.words());
    let device = burn_lens_tensor::DeviceSpec::cpu().open().unwrap();
    let params = demo_parameters(&config, 0, &device);
    let model = burn_lens_models::HookedTransformer::new(config, params)?;
    let evaluation = evaluate(&model, &language, 20, 0)?;
    assert_eq!(evaluation, evaluate(&model, &language, 20, 0)?);
    assert_eq!(evaluation.induction.len(), 12);
    for head in evaluation.induction {
        let expected = if head.head == "1.0" { 0.1..0.5 } else { 0.0..0.1 };
        assert!(expected.contains(&head.score), "{head:?}");
    }
    for task in evaluation.tasks {
        let chance = if task.task == "brackets" { 0.8 } else { 0.3 };
        assert!(task.samples == 20 && task.answers >= 20 && task.accuracy < chance, "{task:?}");
    }
    Ok(())
}

/// Checks that the last word of `text` is what the task says.
#[track_caller]
fn follows(task: Task, text: &str) {
    let words: Vec<&str> = text.split(' ').collect();
    let (last, before) = words.split_last().unwrap();
    let count = |word: &str| before.iter().filter(|other| **other == word).count();
    match task {
        Task::IndirectObject => assert!(count(last) == 1 && before.ends_with(&["to"]), "{text}"),
        Task::Capitals => assert!(count(last) == 0 && last.starts_with(char::is_uppercase), "{text}"),
        Task::Brackets => {
            let mut open = Vec::new();
            for word in before {
                match *word {
                    "(" => open.push(")"),
                    "[" => open.push("]"),
                    "{" => open.push("}"),
                    closing => assert_eq!(open.pop(), Some(closing), "{text}"),
                }
            }
            assert!(open.len() <= 4 && open.last() == Some(last), "{text}");
        }
        Task::Repeats => assert!(count(last) >= 1, "{text}"),
    }
}
