//! The hub, played by a server on the loopback interface.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{Arc, Mutex},
    thread,
};

use burn_lens_io::{Checkpoint, DictionaryFiles, HubOptions, IoError, resolve, resolve_dictionary};
use burn_lens_tensor::Weights;
use tempfile::TempDir;

use crate::support::{assert_says, two_tensors};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

#[test]
fn downloads_what_is_needed_and_nothing_else() {
    let hub = Hub::serve(&[
        ("config.json", b"{}".to_vec()),
        ("tokenizer.json", b"{}".to_vec()),
        ("model.safetensors", two_tensors()),
        ("pytorch_model.bin", b"not wanted".to_vec()),
        ("README.md", b"not wanted".to_vec()),
    ]);
    let seen = Arc::new(Mutex::new(BTreeMap::new()));
    let progress = {
        let seen = Arc::clone(&seen);
        Arc::new(move |at: burn_lens_io::DownloadProgress<'_>| {
            seen.lock().unwrap().insert(at.file.to_owned(), (at.done, at.total, at.finished));
        })
    };
    let folder = resolve("some/model", &HubOptions { progress: Some(progress), ..hub.options() }).unwrap();
    assert_eq!(Checkpoint::open(&folder).unwrap().names(), ["a", "b"]);
    assert!(folder.join("tokenizer.json").is_file());
    assert!(!folder.join("pytorch_model.bin").exists() && !folder.join("README.md").exists());
    let size = two_tensors().len() as u64;
    assert_eq!(seen.lock().unwrap()["model.safetensors"], (size, size, true));
}

#[test]
fn shards_and_old_formats() {
    let index = br#"{"weight_map":{"a":"m-1.safetensors","b":"m-1.safetensors"}}"#;
    let hub = Hub::serve(&[
        ("config.json", b"{}".to_vec()),
        ("vocab.json", b"{}".to_vec()),
        ("merges.txt", b"".to_vec()),
        ("model.safetensors.index.json", index.to_vec()),
        ("m-1.safetensors", two_tensors()),
    ]);
    let folder = resolve("model", &hub.options()).unwrap();
    assert_eq!(Checkpoint::open(&folder).unwrap().names(), ["a", "b"]);
    assert!(folder.join("vocab.json").is_file() && folder.join("merges.txt").is_file());

    let hub = Hub::serve(&[("config.json", b"{}".to_vec()), ("pytorch_model.bin", b"bin".to_vec())]);
    assert!(resolve("model", &hub.options()).unwrap().join("pytorch_model.bin").is_file());
}

#[test]
fn an_index_cannot_name_files_outside() {
    let index = br#"{"weight_map":{"a":"../../../../evil"}}"#.to_vec();
    let hub = Hub::serve(&[("config.json", b"{}".to_vec()), ("model.safetensors.index.json", index)]);
    assert_says(&resolve("model", &hub.options()).unwrap_err(), &["../../../../evil", "inside the folder"]);
}

#[test]
fn what_is_missing_is_named() {
    let hub = Hub::serve(&[("config.json", b"{}".to_vec())]);
    let error = resolve("some/model", &hub.options()).unwrap_err();
    assert!(matches!(error, IoError::NotOnHub { .. }), "{error:?}");
    assert_says(&error, &["some/model", "model.safetensors", "pytorch_model.bin"]);

    let hub = Hub::serve(&[]);
    let options = HubOptions { revision: Some("v9".to_owned()), ..hub.options() };
    assert_says(&resolve("some/model", &options).unwrap_err(), &["config.json", "some/model", "v9"]);

    let index = br#"{"weight_map":{"a":"m-1.safetensors"}}"#.to_vec();
    let hub = Hub::serve(&[("config.json", b"{}".to_vec()), ("model.safetensors.index.json", index)]);
    assert_says(&resolve("some/model", &hub.options()).unwrap_err(), &["some/model", "m-1.safetensors"]);
}

#[test]
fn a_refusal_asks_for_a_token() {
    let hub =
        Hub::locked("hf_right", &[("config.json", b"{}".to_vec()), ("model.safetensors", two_tensors())]);
    let with = |token: &str| HubOptions { token: Some(token.to_owned()), ..hub.options() };
    let error = resolve("some/model", &with("hf_wrong")).unwrap_err();
    assert!(matches!(error, IoError::TokenNeeded { had_token: true, .. }), "{error:?}");
    assert_says(&error, &["some/model", "config.json", "token given has no access"]);
    assert!(!format!("{error:?}").contains("hf_wrong"));
    resolve("some/model", &with("hf_right")).unwrap();
}

#[test]
fn the_cache_serves_without_a_network() {
    let hub = Hub::serve(&[("config.json", b"{}".to_vec()), ("model.safetensors", two_tensors())]);
    let folder = resolve("some/model", &hub.options()).unwrap();

    let before = hub.requests();
    let offline = HubOptions { offline: Some(true), ..hub.options() };
    assert_eq!(resolve("some/model", &offline).unwrap(), folder);
    assert_eq!(hub.requests(), before, "offline asks nothing");

    assert_eq!(resolve("some/model", &hub.options()).unwrap(), folder);
    assert_eq!(hub.downloads("model.safetensors"), 1, "what is cached is not downloaded again");

    // Nobody listens there.
    let down = HubOptions { endpoint: Some(closed_port()), ..hub.options() };
    assert_eq!(resolve("some/model", &down).unwrap(), folder);

    let error = resolve("other/model", &offline).unwrap_err();
    assert!(matches!(error, IoError::Offline { .. }), "{error:?}");
    assert_says(&error, &["config.json", "other/model", "downloads are off"]);
    assert_says(&resolve("other/model", &down).unwrap_err(), &["config.json", "other/model"]);
}

#[test]
fn a_download_that_ends_early_is_not_kept() {
    for trouble in [Trouble::Break, Trouble::Short] {
        let hub = Hub::serve(&[("config.json", b"{}".to_vec()), ("model.safetensors", two_tensors())]);
        hub.state.lock().unwrap().trouble = Some(trouble);
        let error = resolve("some/model", &hub.options()).unwrap_err();
        assert!(matches!(error, IoError::Download { .. } | IoError::PartialDownload { .. }), "{error:?}");
        assert_says(&error, &["some/model", "model.safetensors"]);

        hub.state.lock().unwrap().trouble = None;
        let folder = resolve("some/model", &hub.options()).unwrap();
        assert_eq!(Checkpoint::open(folder).unwrap().names(), ["a", "b"]);
    }
}

#[test]
fn folders_win_and_misspelt_ones_are_recognised() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("tiny-model")).unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let options = HubOptions { offline: Some(true), ..HubOptions::default() };
    assert_eq!(resolve(&path("tiny-model"), &options).unwrap(), folder.path().join("tiny-model"));
    let error = resolve(&path("tiny-modle"), &options).unwrap_err();
    assert_says(&error, &["neither a folder nor a model name", &path("tiny-model")]);
    assert_says(&resolve(&path("unlike"), &options).unwrap_err(), &["neither a folder nor a model name"]);
    assert!(matches!(resolve(&path("file"), &options), Err(IoError::NotAFolder { .. })));
}

#[test]
fn a_dictionary_is_a_folder_or_a_file_of_a_repository() {
    let hub = Hub::serve(&[
        ("README.md", b"not wanted".to_vec()),
        ("layer_2/cfg.json", b"{}".to_vec()),
        ("layer_2/sae_weights.safetensors", two_tensors()),
        ("layer_2/activation_scaler.json", b"{}".to_vec()),
        ("layer_2/sparsity.safetensors", b"not wanted".to_vec()),
        ("run/config.json", b"{}".to_vec()),
        ("run/checkpoints/ae_5.safetensors", two_tensors()),
        ("params.safetensors", two_tensors()),
    ]);
    let files = |name: &str| {
        let path = resolve_dictionary(name, &hub.options()).unwrap();
        (DictionaryFiles::find(&path).unwrap(), path)
    };
    let (found, folder) = files("some/saes/layer_2");
    assert!(
        folder.ends_with("layer_2") && folder.parent().unwrap().ends_with(COMMIT),
        "{}",
        folder.display()
    );
    assert_eq!(found.weights, folder.join("sae_weights.safetensors"));
    assert_eq!(
        (found.config, found.scaler),
        (Some(folder.join("cfg.json")), Some(folder.join("activation_scaler.json")))
    );
    assert!(found.whitening.is_none() && !folder.join("sparsity.safetensors").exists());
    assert_eq!(Checkpoint::open_file(&found.weights).unwrap().names(), ["a", "b"]);

    let (found, file) = files("some/saes/run/checkpoints/ae_5.safetensors");
    assert_eq!(found.weights, file);
    assert!(found.config.unwrap().ends_with("config.json"));
    let (found, root) = files("some/saes");
    assert_eq!((found.weights, found.config), (root.join("params.safetensors"), None));

    let before = hub.requests();
    let offline = HubOptions { offline: Some(true), ..hub.options() };
    assert_eq!(resolve_dictionary("some/saes/layer_2", &offline).unwrap(), folder);
    assert_eq!(hub.requests(), before, "offline asks nothing");
    let error = resolve_dictionary("some/saes/layer_3", &hub.options()).unwrap_err();
    assert!(matches!(error, IoError::NotOnHub { .. }), "{error:?}");
    assert_says(&error, &["some/saes", "layer_3/sae_weights.safetensors", "layer_3/params.npz"]);
}

#[test]
fn a_misspelt_dictionary_is_recognised() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("layer_2/width_16k")).unwrap();
    std::fs::write(folder.path().join("layer_2/25.pt"), "").unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let options = HubOptions { offline: Some(true), ..HubOptions::default() };
    for exists in ["layer_2", "layer_2/25.pt"] {
        assert_eq!(resolve_dictionary(&path(exists), &options).unwrap(), folder.path().join(exists));
    }
    for (wrong, near) in [
        ("layer_3/width_16k", "layer_2"),
        ("layer_2/width_15k", "layer_2/width_16k"),
        ("layer_2/26.pt", "layer_2/25.pt"),
    ] {
        let error = resolve_dictionary(&path(wrong), &options).unwrap_err();
        assert_says(&error, &["neither a folder", "OWNER/REPO/PATH", &path(near)]);
    }
    assert_says(&resolve_dictionary("demoo", &options).unwrap_err(), &["`demoo`"]);
}

/// The environment is read once per process, so this test runs itself again with it set.
#[test]
fn the_environment_is_honoured() {
    const CHILD: &str = "BURN_LENS_IO_TEST_CHILD";
    if let Ok(expected) = env::var(CHILD) {
        let result = resolve("some/model", &HubOptions::default());
        assert_eq!(if result.is_ok() { "found" } else { "refused" }, expected, "{result:?}");
        return;
    }
    let hub =
        Hub::locked("hf_right", &[("config.json", b"{}".to_vec()), ("model.safetensors", two_tensors())]);
    let run = |expected: &str, variables: &[(&str, &str)]| {
        let status = Command::new(env::current_exe().unwrap())
            .args(["--exact", "hub::the_environment_is_honoured"])
            .env(CHILD, expected)
            .env("HF_HOME", hub.cache.path())
            .env_remove("HF_HUB_CACHE")
            .env_remove("HF_TOKEN")
            .env_remove("HF_HUB_OFFLINE")
            .envs(variables.iter().copied())
            .status()
            .unwrap();
        assert!(status.success(), "{variables:?}");
    };
    let endpoint = ("HF_ENDPOINT", hub.endpoint.as_str());
    run("refused", &[endpoint]);
    run("refused", &[endpoint, ("HF_TOKEN", "hf_right"), ("HF_HUB_OFFLINE", "1")]);
    run("found", &[endpoint, ("HF_TOKEN", "hf_right"), ("HF_HUB_OFFLINE", "0")]);
    assert!(hub.cache.path().join("hub/models--some--model").is_dir());
    run("found", &[endpoint, ("HF_HUB_OFFLINE", "1")]);
}

/// A hub with one model, under whatever name it is asked for.
struct Hub {
    endpoint: String,
    cache: TempDir,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    token: Option<String>,
    /// Each request line, in order.
    log: Vec<String>,
    /// What happens to downloads of weights.
    trouble: Option<Trouble>,
}

#[derive(Clone, Copy, PartialEq)]
enum Trouble {
    /// The connection breaks in the middle.
    Break,
    /// A well-formed answer that is shorter than was announced, as an error page would be.
    Short,
}

impl Hub {
    fn serve(files: &[(&str, Vec<u8>)]) -> Self {
        Self::start(None, files)
    }

    fn locked(token: &str, files: &[(&str, Vec<u8>)]) -> Self {
        Self::start(Some(token.to_owned()), files)
    }

    fn start(token: Option<String>, files: &[(&str, Vec<u8>)]) -> Self {
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect();
        let state = Arc::new(Mutex::new(State { files, token, ..State::default() }));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A connection that breaks is the client's to notice.
                let _ = answer(stream, &shared);
            }
        });
        Self { endpoint, cache: tempfile::tempdir().unwrap(), state }
    }

    fn options(&self) -> HubOptions {
        HubOptions {
            endpoint: Some(self.endpoint.clone()),
            cache: Some(self.cache.path().to_owned()),
            offline: Some(false),
            ..HubOptions::default()
        }
    }

    fn requests(&self) -> usize {
        self.state.lock().unwrap().log.len()
    }

    fn downloads(&self, file: &str) -> usize {
        self.state
            .lock()
            .unwrap()
            .log
            .iter()
            .filter(|line| line.starts_with("GET") && line.contains(file))
            .count()
    }
}

/// Answers one request, `HEAD` or `GET /<repo>/resolve/<revision>/<file>`, and closes.
fn answer(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut authorization = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if line.to_ascii_lowercase().starts_with("authorization:") {
            line.trim().clone_into(&mut authorization);
        }
    }
    let mut state = state.lock().unwrap();
    state.log.push(request.clone());
    let file = request
        .split(' ')
        .nth(1)
        .and_then(|path| path.split_once("/resolve/")?.1.split_once('/'))
        .map_or("", |(_, file)| file);

    let (status, code, body) = match (&state.token, state.files.get(file)) {
        (Some(token), _) if !authorization.ends_with(&format!("Bearer {token}")) => {
            ("401 Unauthorized", "", &b""[..])
        }
        (_, None) => ("404 Not Found", "X-Error-Code: EntryNotFound\r\n", &b""[..]),
        (_, Some(bytes)) => ("200 OK", "", bytes.as_slice()),
    };
    let is_troubled = request.starts_with("GET") && file.contains("model.");
    let trouble = state.trouble.filter(|_| is_troubled);
    let body = if trouble == Some(Trouble::Short) { &body[..body.len() / 2] } else { body };
    let len = body.len();
    let etag = format!("{len:x}-{}", file.replace(['.', '/'], "_"));
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {len}\r\nETag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\n{code}Connection: close\r\n\r\n"
    )?;
    if request.starts_with("GET") {
        let kept = if trouble == Some(Trouble::Break) { len / 2 } else { len };
        stream.write_all(&body[..kept])?;
    }
    stream.flush()
}

/// An endpoint where connections are refused.
fn closed_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}
