"use strict";
// Draws feature data. Texts only ever become text nodes, so nothing in a token is markup.
(() => {
  const make = (name, parent, properties = {}, children = []) => {
    const element = document.createElement(name);
    for (const key in properties) {
      if (key in element) element[key] = properties[key]; else element.setAttribute(key, properties[key]);
    }
    element.append(...children);
    parent?.append(element);
    return element;
  };
  const draw = (name, parent, attributes = {}, text = "") => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    element.textContent = text;
    parent.append(element);
    return element;
  };
  const data = JSON.parse(document.getElementById("data").textContent);
  const app = document.getElementById("app");
  const signed = (x, digits = 3) => (x >= 0 ? "+" : "−") + Math.abs(x).toFixed(digits);
  const percent = (x, digits = 3) => (100 * x).toFixed(digits) + "%";
  const number = (x) => x === 0 ? "0" : Math.abs(x) >= 1e5 || Math.abs(x) < 1e-3 ? x.toExponential(2) : +x.toPrecision(4) + "";

  // A token's text: what cannot be seen is spelt out, bytes that are no text are shown in hexadecimal.
  const text = (vocabulary, id, inTable = false) => {
    const token = vocabulary[id];
    if (!token) return `⟨${id}⟩`;
    if (token.bytes) return "⟨" + token.bytes.match(/../g).join(" ") + "⟩";
    const shown = token.text.replace(/[\n\t\r\0-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g, (c) =>
      c === "\n" ? "↵" : c === "\t" ? "⇥" : `\\u{${c.codePointAt(0).toString(16)}}`);
    return shown === "" ? "∅" : inTable ? shown.replace(/ /g, "·") : shown;
  };
  const isControl = (vocabulary, id) => !vocabulary[id] || !!vocabulary[id].bytes || /^[\n\t\r]+$/.test(vocabulary[id].text);

  // ---------- histograms ----------
  const histogram = (parent, histogram, title, color) => {
    const block = make("section", parent, { className: "block" }, [make("h2", null, { textContent: title })]);
    if (!histogram || histogram.heights.length === 0) {
      make("p", block, { className: "soft", textContent: "no values" });
      return { mark() {} };
    }
    const width = 380, height = 110, bottom = 92, top = 14;
    const svg = draw("svg", block, { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title });
    const { low, high, heights } = histogram;
    const range = high - low || 1;
    const x = (value) => 4 + (value - low) / range * (width - 8);
    const most = Math.max(...heights);
    heights.forEach((count, bin) => {
      const left = x(low + range * bin / heights.length), right = x(low + range * (bin + 1) / heights.length);
      const size = count === 0 ? 0 : Math.max(.75, count / most * (bottom - top));
      const bar = draw("rect", svg, { x: left, width: Math.max(.5, right - left - .75), y: bottom - size, height: size, fill: color(low + range * (bin + .5) / heights.length) });
      draw("title", bar, {}, `${number(low + range * bin / heights.length)} to ${number(low + range * (bin + 1) / heights.length)}: ${count}`);
    });
    draw("line", svg, { class: "axis", x1: 4, x2: width - 4, y1: bottom, y2: bottom });
    for (const tick of ticks(low, high)) draw("text", svg, { x: x(tick), y: bottom + 12, "text-anchor": "middle" }, number(tick));
    draw("text", svg, { x: width - 4, y: 9, "text-anchor": "end" }, `most in a bin: ${most}`);
    const line = draw("line", svg, { class: "line", y1: top - 4, y2: bottom, visibility: "hidden" });
    const label = draw("text", svg, { class: "value", y: 9, visibility: "hidden" });
    return {
      mark(value) {
        const hidden = value === undefined || value === null;
        for (const element of [line, label]) element.setAttribute("visibility", hidden ? "hidden" : "visible");
        if (hidden) return;
        const at = Math.min(width - 4, Math.max(4, x(value)));
        line.setAttribute("x1", at);
        line.setAttribute("x2", at);
        label.setAttribute("x", at);
        label.setAttribute("text-anchor", at > width / 2 ? "end" : "start");
        label.textContent = signed(value);
      },
    };
  };
  const ticks = (low, high) => {
    const raw = (high - low) / 5, power = 10 ** Math.floor(Math.log10(raw));
    const step = power * ([1, 2, 5, 10].find((m) => m * power >= raw) ?? 10);
    const found = [];
    for (let at = Math.ceil(low / step); at * step <= high && found.length < 20; at++) found.push(at * step || 0);
    return found;
  };

  // ---------- tables ----------
  const table = (parent, title, columns, rows) => {
    if (rows.length === 0) return;
    const block = make("section", parent, { className: "block" }, [make("h2", null, { textContent: title })]);
    const element = make("table", block);
    const head = make("tr", make("thead", element));
    columns.forEach((column) => make("th", head, { scope: "col", textContent: column }));
    const body = make("tbody", element);
    for (const row of rows) {
      const line = make("tr", body);
      for (const cell of row) make("td", line, {}, [cell]);
    }
  };
  const logitTable = (parent, title, rows, most, vocabulary, color) => {
    const block = make("section", parent, {}, [make("h2", null, { textContent: title })]);
    const body = make("tbody", make("table", block));
    for (const { token, value } of rows) {
      const line = make("tr", body);
      const word = make("span", make("td", line), { className: "tok", textContent: text(vocabulary, token, true), title: `token ${token}` });
      word.style.background = `rgba(var(${color}), ${.5 * Math.abs(value) / (most || 1)})`;
      make("td", line, { textContent: signed(value, 2) });
    }
  };
  const pairs = (list, link) => list.map(({ index, pearson, cosine }) => [link ? link(index) : `${index}`, signed(pearson, 2), signed(cosine, 2)]);

  // ---------- the card ----------
  const card = make("div", document.body, { id: "card", hidden: true, role: "tooltip" });
  const place = (target) => {
    const box = target.getBoundingClientRect(), own = card.getBoundingClientRect(), gap = 6;
    const below = box.bottom + gap + own.height <= innerHeight;
    card.style.left = Math.max(gap, Math.min(innerWidth - own.width - gap, box.left)) + "px";
    card.style.top = Math.max(gap, below ? box.bottom + gap : box.top - own.height - gap) + "px";
  };
  const fillCard = (vocabulary, sequence, at, source) => {
    card.replaceChildren();
    const id = sequence.tokens[at];
    make("div", card, {}, [
      make("span", null, { className: "name", textContent: text(vocabulary, id, true) }),
      make("span", null, { className: "soft", textContent: `  token ${id}` }),
    ]);
    const facts = make("dl", card);
    const fact = (name, value) => { make("dt", facts, { textContent: name }); make("dd", facts, { textContent: value }); };
    fact("prompt, position", `${sequence.prompt}, ${sequence.start + at}`);
    fact("activation", number(sequence.activations[at]));
    if (typeof sequence.logit_effects?.[at] === "number") fact("logit effect", signed(sequence.logit_effects[at]));
    const loss = sequence.loss_effects?.[at];
    if (loss !== undefined && loss !== null) fact("loss effect", signed(loss, 4));
    if (source !== undefined) fact("source of the activation", signed(source));
    const hover = sequence.hover?.[at];
    if (!hover) {
      const why = !sequence.hover?.length ? "" : sequence.start + at === 0 ? "The first token of a prompt is not predicted." :
        "Not active at the token before, so this prediction is not changed.";
      if (why) make("p", card, { className: "soft", textContent: why, style: "margin:0" });
      return;
    }
    make("h2", card, { textContent: "change of log-probability here" });
    const both = make("div", card, { className: "pair" });
    const most = Math.max(...[...hover.top, ...hover.bottom].map(({ value }) => Math.abs(value)), 1e-9);
    logitTable(both, "more likely", hover.top, most, vocabulary, "--positive");
    logitTable(both, "less likely", hover.bottom, most, vocabulary, "--negative");
  };

  // ---------- one feature ----------
  const title = (group, n) => {
    const values = group.sequences.map((s) => s.activations[s.target]);
    const share = n ? percent(group.n_active / n) : "0%";
    switch (group.kind.kind) {
      case "top": return `Top activations · max ${number(Math.max(...values))}`;
      case "bottom": return `Bottom activations · min ${number(Math.min(...values))}`;
      default: return `Interval ${number(group.kind.low)} to ${number(group.kind.high)} · ${share} of active tokens`;
    }
  };
  const render = (main, run, vocabulary, feature, link) => {
    main.replaceChildren();
    card.hidden = true;
    const stats = feature.statistics;
    const header = make("header", main);
    make("h1", header, { textContent: feature.label ? `${feature.label} (${feature.feature})` : `Feature ${feature.feature}` });
    make("span", header, { className: `badge ${feature.kind}`, textContent: feature.kind });
    make("span", header, { className: "soft", textContent: `${run.sae} · ${run.hook} · ${run.model} · ${run.n_prompts} prompts of ${run.n_positions}` });
    if (feature.kind === "dead") make("p", main, { textContent: `It is never active on these ${stats.n_tokens} tokens. What its weights say of it is below.` });
    if (stats.n_not_finite) make("p", main, { textContent: `Its activation is NaN or infinite at ${stats.n_not_finite} tokens; they are left out.` });

    const columns = make("div", main, { className: "columns" });
    const tables = make("div", columns, { className: "tables" });
    const middle = make("div", columns);
    const right = make("div", columns);

    table(tables, "Neuron alignment", ["index", "value", "% of L1"], feature.neuron_alignment.map(({ index, value, l1_share }) => [`${index}`, signed(value, 2), percent(l1_share, 1)]));
    table(tables, "Correlated neurons", ["index", "Pearson", "cosine"], pairs(feature.correlated_neurons));
    table(tables, "Correlated features", ["index", "Pearson", "cosine"], pairs(feature.correlated_features, link));
    table(tables, `Correlated features (${run.sae_b ?? "B"})`, ["index", "Pearson", "cosine"], pairs(feature.correlated_b_features));
    if (feature.decoder_head_shares?.length) table(tables, "Decoder norm by head", ["head", "share"], feature.decoder_head_shares.map((share, head) => [`${head}`, percent(share, 1)]));
    if (stats.n_active) table(tables, "Activations", ["", ""], [["active tokens", `${stats.n_active}`], ["median", number(stats.quantiles.values[10])], ["99%", number(stats.quantiles.values[20])], ["max", number(stats.max)], ["min", number(stats.min)]]);

    const density = stats.n_tokens ? stats.n_active / stats.n_tokens : 0;
    const largest = Math.max(Math.abs(stats.max), Math.abs(stats.min)) || 1;
    const actHistogram = histogram(middle, feature.activations, `Activations · density ${percent(density)}`, (v) => `rgba(var(--act), ${.4 + .6 * Math.min(1, Math.abs(v) / largest)})`);
    let logitHistogram = { mark() {} };
    if (feature.logits) {
      const { top, bottom } = feature.logits;
      const most = Math.max(...[...top, ...bottom].map(({ value }) => Math.abs(value)), 1e-9);
      const both = make("div", middle, { className: "pair block" });
      logitTable(both, "Negative logits", bottom, most, vocabulary, "--negative");
      logitTable(both, "Positive logits", top, most, vocabulary, "--positive");
      logitHistogram = histogram(middle, feature.logits.histogram, "Logits", (v) => `rgba(var(${v < 0 ? "--negative" : "--positive"}), .75)`);
    }

    // Sequences. Colors are scaled by the feature's largest activation and the group's largest effect on the loss.
    const cells = [];
    let sources = false;
    const hasSources = feature.groups.some((group) => group.sequences.some((s) => s.attribution));
    if (hasSources) {
      const box = make("input", null, { type: "checkbox", id: "sources" });
      make("p", right, {}, [box, make("label", null, { htmlFor: "sources", textContent: " color by where the marked activation was read from" })]);
      box.addEventListener("change", () => { sources = box.checked; cells.forEach((cell) => cell.paint()); });
    }
    if (feature.groups.length) {
      const key = make("p", right, { className: "key soft" });
      const part = (className, text) => key.append(make("span", null, { className: `sample ${className}`, textContent: "token" }), ` ${text}  `);
      part("act", "active");
      if (stats.min < 0) part("act-negative", "negative");
      if (feature.logits) { part("help", "predicted better with the feature"); part("harm", "worse"); }
    }
    const groups = make("div", right, { className: "group-columns" });
    feature.groups.forEach((group) => {
      if (group.sequences.length === 0) return;
      const section = make("section", groups, { className: "group" }, [make("h2", null, { textContent: title(group, stats.n_active) })]);
      const worst = Math.max(...group.sequences.flatMap((s) => (s.loss_effects ?? []).map((x) => Math.abs(x ?? 0))), 1e-9);
      const strongest = Math.max(...group.sequences.flatMap((s) => (s.attribution?.values ?? []).map(Math.abs)), 1e-9);
      group.sequences.forEach((sequence) => {
        const row = make("div", section, { className: "seq" });
        make("span", row, { className: "where", textContent: `${sequence.prompt}:${sequence.start + sequence.target}`, title: "prompt : position" });
        const line = make("div", row, { className: "text" });
        const of = [];
        sequence.tokens.forEach((id, at) => {
          const cell = make("span", line, { className: "t", tabIndex: -1, textContent: text(vocabulary, id) });
          if (at === sequence.target) cell.classList.add("target");
          if (isControl(vocabulary, id)) cell.classList.add("control");
          const source = sequence.attribution?.values[sequence.start + at];
          const loss = sequence.loss_effects?.[at] ?? 0;
          if (loss !== 0) {
            const color = loss < 0 ? "--help" : "--harm";
            cell.style.borderBottomColor = `color-mix(in srgb, var(${color}) ${100 * Math.min(1, Math.abs(loss) / worst)}%, transparent)`;
          }
          const paint = () => {
            const strength = sources ? (source ?? 0) / strongest : sequence.activations[at] / largest;
            const color = sources ? "--dfa" : strength < 0 ? "--act-negative" : "--act";
            cell.style.background = strength !== 0 && !(sources && strength < 0) ? `rgba(var(${color}), ${Math.min(1, Math.abs(strength))})` : "";
          };
          paint();
          const show = () => {
            fillCard(vocabulary, sequence, at, source);
            card.hidden = false;
            place(cell);
            actHistogram.mark(sequence.activations[at] !== 0 ? sequence.activations[at] : null);
            logitHistogram.mark(sequence.logit_effects?.[at]);
          };
          const hide = () => { card.hidden = true; actHistogram.mark(null); logitHistogram.mark(null); };
          cell.setAttribute("aria-label", `${text(vocabulary, id, true)}, activation ${number(sequence.activations[at])}`);
          cell.addEventListener("pointerenter", show);
          cell.addEventListener("pointerleave", hide);
          cell.addEventListener("focus", show);
          cell.addEventListener("blur", hide);
          cells.push({ cell, paint });
          of.push(cell);
        });
        if (sequence.repeats) make("span", row, { className: "more", textContent: `+${sequence.repeats} alike` });
        rows.push({ cells: of, target: sequence.target });
        // A long sequence is scrolled to what it was chosen for.
        const target = of[sequence.target];
        if (target && sequence.tokens.length > 24) line.scrollLeft = target.offsetLeft - line.offsetLeft - line.clientWidth / 2;
      });
    });
    if (rows[0]) rows[0].cells[rows[0].target].tabIndex = 0;
    if (run.notes?.length) make("ul", main, { className: "notes" }, run.notes.map((note) => make("li", null, { textContent: note })));
  };

  // Arrow keys move from token to token; Escape leaves.
  let rows = [];
  const focused = () => {
    const row = rows.findIndex(({ cells }) => cells.includes(document.activeElement));
    return row < 0 ? null : [row, rows[row].cells.indexOf(document.activeElement)];
  };
  const focus = (row, column) => {
    const cells = rows[row]?.cells;
    const cell = cells?.[Math.min(cells.length - 1, Math.max(0, column))];
    if (!cell) return;
    document.activeElement.tabIndex = -1;
    cell.tabIndex = 0;
    cell.focus();
  };
  document.addEventListener("keydown", (event) => {
    const at = focused();
    if (!at) return;
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (step) { event.preventDefault(); focus(at[0] + step[0], at[1] + step[1]); }
    if (event.key === "Escape") document.activeElement.blur();
  });

  if (data.feature) {
    render(make("main", app), data.run, data.vocabulary, data.feature);
    return;
  }

  // ---------- many features: a list, and the data of each in a file of its own ----------
  app.className = "with-list";
  const nav = make("nav", app);
  const main = make("main", app);
  const head = make("header", nav, {}, [make("b", null, { textContent: data.run.sae || "Features" })]);
  const filter = make("input", head, { type: "search", placeholder: "number or token ( / )", "aria-label": "filter" });
  const order = make("select", head, { "aria-label": "order" });
  for (const [value, name] of [["feature", "by number"], ["density", "most often active first"], ["rare", "least often active first"], ["max", "largest activation first"]]) make("option", order, { value, textContent: name });
  const list = make("ol", nav);
  const count = make("footer", nav);
  make("footer", nav, {}, [
    make("kbd", null, { textContent: "j" }), " ", make("kbd", null, { textContent: "k" }), " next, previous  ",
    make("kbd", null, { textContent: "↹" }), " ", make("kbd", null, { textContent: "←↑↓→" }), " tokens",
  ]);
  const known = new Map(data.features.map((row) => [row.feature, row]));
  let shown = [], current = null, limit = 300;
  const sorters = {
    feature: (a, b) => a.feature - b.feature, density: (a, b) => b.density - a.density,
    rare: (a, b) => (a.density || Infinity) - (b.density || Infinity), max: (a, b) => b.max - a.max,
  };
  const update = () => {
    const wanted = filter.value.trim().toLowerCase();
    shown = data.features.filter((row) => !wanted || `${row.feature}`.startsWith(wanted) || row.top.toLowerCase().includes(wanted) || (row.label ?? "").toLowerCase().includes(wanted));
    shown.sort(sorters[order.value]);
    drawList();
  };
  const drawList = () => {
    list.replaceChildren(...shown.slice(0, limit).map((row) => {
      const item = make("li", null);
      const anchor = make("a", item, { href: `#${row.feature}`, title: `${row.kind}, ${row.n_active} active tokens` }, [
        make("span", null, { textContent: row.feature }), make("span", null, { textContent: row.label ?? (row.kind === "dead" ? "dead" : row.top.replace(/\n/g, "↵")) }),
        make("span", null, { textContent: percent(row.density, 2) }),
      ]);
      anchor.setAttribute("aria-current", row.feature === current);
      return item;
    }));
    count.textContent = `${shown.length} of ${data.features.length} features`;
  };
  list.addEventListener("scroll", () => {
    if (limit < shown.length && list.scrollTop + list.clientHeight > list.scrollHeight - 400) { limit += 300; drawList(); }
  });
  filter.addEventListener("input", () => { limit = 300; update(); });
  order.addEventListener("change", update);

  const cache = new Map();
  // A script element works from a folder without a server, where fetch does not.
  globalThis.burnLensFeature = (loaded) => cache.set(loaded.feature.feature, loaded);
  const load = (feature) => new Promise((resolve, reject) => {
    if (cache.has(feature)) return resolve(cache.get(feature));
    const script = make("script", null, { src: `features/${feature}.js` });
    script.onload = () => { script.remove(); cache.has(feature) ? resolve(cache.get(feature)) : reject(); };
    script.onerror = () => { script.remove(); reject(); };
    document.head.append(script);
  });
  const link = (feature) => known.has(feature) ? make("a", null, { href: `#${feature}`, textContent: feature }) : `${feature}`;
  const open = async (feature) => {
    current = feature;
    const at = shown.findIndex((row) => row.feature === feature);
    if (at >= limit) { limit = at + 300; drawList(); }
    list.querySelectorAll("a").forEach((anchor) => anchor.setAttribute("aria-current", anchor.hash === `#${feature}`));
    list.querySelector('a[aria-current="true"]')?.scrollIntoView({ block: "nearest" });
    document.title = `Feature ${feature} · ${data.run.sae}`;
    try {
      const loaded = await load(feature);
      if (current !== feature) return;
      rows = [];
      render(main, data.run, loaded.vocabulary, loaded.feature, link);
      main.scrollTop = 0;
    } catch {
      main.replaceChildren(make("p", null, { textContent: `features/${feature}.js could not be read: it must lie beside this file.` }));
    }
  };
  const fromHash = () => {
    const feature = Number(location.hash.slice(1));
    open(location.hash && known.has(feature) ? feature : data.first ?? data.features[0]?.feature);
  };
  addEventListener("hashchange", fromHash);
  document.addEventListener("keydown", (event) => {
    if (event.target === filter) { if (event.key === "Escape" || event.key === "Enter") filter.blur(); return; }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") { event.preventDefault(); filter.focus(); return; }
    const step = { j: 1, n: 1, k: -1, p: -1 }[event.key];
    const next = step && shown[shown.findIndex((row) => row.feature === current) + step];
    if (next) location.hash = `#${next.feature}`;
  });
  update();
  if (data.features.length) fromHash(); else make("p", main, { textContent: "There are no features." });
})();
