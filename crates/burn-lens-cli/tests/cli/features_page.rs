//! The pages of features, in a browser: what a script does with them. Where there is no Chromium this
//! says so and passes.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::{
    features::{prepared, run},
    sae::demo_sae,
    support::ok_in,
};

/// The first of these that is there.
fn browser() -> Option<&'static str> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = names.into_iter().find(|name| Command::new(name).arg("--version").output().is_ok());
    if found.is_none() {
        eprintln!("skipped: none of {names:?} is installed");
    }
    found
}

/// Opens a page, runs `script` at its end and gives what that hands to `done`. `scheme` is 0 for dark, 1 for
/// light.
fn driven(browser: &str, page: &Path, script: &str, scheme: u8) -> Value {
    let html = fs::read_to_string(page).unwrap();
    let driver = format!(
        "<script>const done = (result) => {{ const pre = document.createElement('pre'); pre.id = 'result';
        pre.textContent = '@@' + encodeURIComponent(JSON.stringify(result)) + '@@'; document.body.append(pre); }};
        const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
        (async () => {{ try {{ {script} }} catch (error) {{ done({{ error: String(error) }}); }} }})();</script></body>"
    );
    let driven = page.with_file_name("driven.html");
    fs::write(&driven, html.replacen("</body>", &driver, 1)).unwrap();
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--window-size=1400,1600", "--virtual-time-budget=10000", "--dump-dom"])
        .arg(format!("--blink-settings=preferredColorScheme={scheme}"))
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}", driven.display()))
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    let result = dom.rsplit("@@").nth(1).unwrap_or_else(|| panic!("no result: {dom}"));
    let result: Value = serde_json::from_str(&unescaped(result)).unwrap();
    assert!(result.get("error").is_none(), "{result}");
    result
}

/// The inverse of `encodeURIComponent`.
fn unescaped(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        if bytes[at] == b'%' {
            found.push(u8::from_str_radix(&text[at + 1..at + 3], 16).unwrap());
            at += 3;
        } else {
            found.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8(found).unwrap()
}

const LOOK_AROUND: &str = "
    while (!document.querySelector('.seq')) await wait(10);
    const heading = () => document.querySelector('h1').textContent;
    const card = document.getElementById('card');
    const lines = () => [...document.querySelectorAll('svg .line')].map((line) => line.getAttribute('visibility'));
    const press = (key, target) => (target ?? document.body).dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
    const found = { first: heading(), listed: document.querySelectorAll('nav li').length };
    const target = document.querySelector('.t.target');
    const alpha = (cell) => Number(/, ([\\d.]+)\\)/.exec(cell.style.background)?.[1] ?? 0);
    found.strongest = Math.max(...[...document.querySelectorAll('.t')].map(alpha));
    target.dispatchEvent(new PointerEvent('pointerenter'));
    found.hovered = { hidden: card.hidden, text: card.textContent, lines: lines() };
    const box = card.getBoundingClientRect();
    found.inside = box.left >= 0 && box.top >= 0 && box.right <= innerWidth && box.bottom <= innerHeight;
    target.dispatchEvent(new PointerEvent('pointerleave'));
    found.left = { hidden: card.hidden, lines: lines() };
    target.focus();
    press('ArrowDown', document.activeElement);
    press('ArrowLeft', document.activeElement);
    found.moved = { same: document.activeElement === target, cell: document.activeElement.className, hidden: card.hidden };
    press('Escape', document.activeElement);
    found.escaped = { cell: document.activeElement.className, hidden: card.hidden };
    press('/');
    found.filter = document.activeElement.type;
    const filter = document.activeElement;
    filter.value = '3';
    filter.dispatchEvent(new Event('input'));
    found.filtered = document.querySelectorAll('nav li').length;
    filter.value = '';
    filter.dispatchEvent(new Event('input'));
    filter.blur();
    const before = heading();
    press(document.querySelector('nav li a[aria-current=true]').parentElement.nextElementSibling ? 'j' : 'k');
    for (let i = 0; i < 200 && heading() === before; i++) await wait(10);
    found.next = [before, heading(), location.hash, document.querySelector('nav li a[aria-current=true]').hash];
    found.back = getComputedStyle(document.body).backgroundColor;
    const refused = new Promise((resolve) => document.addEventListener('securitypolicyviolation', resolve));
    fetch('http://127.0.0.1:9/').catch(() => null);
    found.refused = (await refused).violatedDirective;
    done(found);";

#[test]
fn a_folder_of_features_is_looked_through() {
    let Some(browser) = browser() else { return };
    let folder = prepared();
    run(folder.path(), &["--out", "out", "--html"]);
    let page = folder.path().join("out/index.html");
    let found = driven(browser, &page, LOOK_AROUND, 1);
    assert_eq!(found["listed"], 6);
    assert!(found["first"].as_str().unwrap().starts_with("Feature "), "{found}");
    // Colors are scaled by the feature: the strongest activation has the full one.
    assert_eq!(found["strongest"].as_f64(), Some(1.0), "{found}");
    let hovered = &found["hovered"];
    assert_eq!((&hovered["hidden"], &found["inside"]), (&false.into(), &true.into()));
    for said in ["activation", "logit effect", "loss effect", "prompt, position"] {
        assert!(hovered["text"].as_str().unwrap().contains(said), "{said}: {found}");
    }
    assert_eq!(hovered["lines"], json!(["visible", "visible"]), "both histograms mark the value");
    assert_eq!(found["left"], json!({ "hidden": true, "lines": ["hidden", "hidden"] }));
    assert_eq!((&found["moved"]["same"], &found["moved"]["hidden"]), (&false.into(), &false.into()));
    assert!(found["moved"]["cell"].as_str().unwrap().starts_with('t'));
    assert_eq!(found["escaped"], json!({ "cell": "", "hidden": true }));
    assert_eq!((&found["filter"], &found["filtered"]), (&"search".into(), &1.into()));
    let next = &found["next"];
    assert!(next[0] != next[1] && next[2] == next[3], "{next}");
    assert_eq!(found["refused"], "connect-src", "the page may ask the network for nothing");
    let dark = driven(browser, &page, LOOK_AROUND, 0);
    assert_ne!(dark["back"], found["back"], "light and dark are two");
}

#[test]
fn a_dead_feature_has_a_page_that_says_so() {
    let Some(browser) = browser() else { return };
    let folder = prepared();
    demo_sae(folder.path(), -1e6);
    let run = ["features", "run", "--model", "demo", "--sae", "sae", "--text", "text.txt", "--out", "out"];
    ok_in(folder.path(), &[&run[..], &["--features", "0,1"]].concat());
    let show = ["features", "show", "out", "--feature", "1"];
    assert!(ok_in(folder.path(), &show).contains("dead"));
    ok_in(folder.path(), &[&show[..], &["--html", "page.html"]].concat());
    let script = "done({ text: document.querySelector('main').textContent });";
    let found = driven(browser, &folder.path().join("page.html"), script, 1);
    assert!(found["text"].as_str().unwrap().contains("never active"), "{found}");
}

const HOSTILE: &str = "<script>document.title='run'</script>";

#[test]
fn tokens_are_text_byte_for_byte() {
    let Some(browser) = browser() else { return };
    let folder = prepared();
    run(folder.path(), &["--out", "out", "--features", "0"]);
    let path = folder.path().join("out/data/0.json");
    let mut set: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let tokens = set["features"][0]["groups"][0]["sequences"][0]["tokens"].as_array().unwrap().clone();
    let mut kinds: Vec<String> = tokens.iter().map(Value::to_string).collect();
    kinds.sort();
    kinds.dedup();
    let texts = [
        json!({ "text": HOSTILE }),
        json!({ "text": "\u{fffd}", "bytes": "d0" }),
        json!({ "text": "a\nb" }),
        json!({ "text": "Привет" }),
    ];
    for (id, text) in kinds.iter().zip(&texts) {
        set["vocabulary"][id] = text.clone();
    }
    fs::write(&path, set.to_string()).unwrap();
    ok_in(folder.path(), &["features", "show", "out/data/0.json", "--html", "page.html"]);
    let script = "done({ title: document.title, scripts: document.scripts.length,
        cells: [...new Set([...document.querySelectorAll('.t')].map((cell) => cell.textContent))],
        requests: performance.getEntriesByType('resource').length });";
    let found = driven(browser, &folder.path().join("page.html"), script, 1);
    assert_eq!(found["title"], "Feature 0 of vectors");
    // The data, the page's own script and this test's.
    assert_eq!((&found["scripts"], &found["requests"]), (&3.into(), &0.into()));
    let cells = found["cells"].as_array().unwrap();
    for shown in [HOSTILE, "⟨d0⟩", "a↵b", "Привет"] {
        assert!(cells.iter().any(|cell| cell == shown), "{shown}: {cells:?}");
    }
}
