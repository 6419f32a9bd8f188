"use strict";
// Draws each .attention element from the JSON inside it. Tokens only ever become text nodes.
for (const root of document.querySelectorAll(".attention")) {
  const data = JSON.parse(root.querySelector("script").textContent);
  const count = data.tokens.length;
  const state = { layer: data.layer, head: data.head, row: count - 1, column: 0 };
  const weight = (pattern, row, column) => {
    if (data.causal) return column > row ? 0 : pattern[row * (row + 1) / 2 + column];
    return pattern[row * count + column];
  };
  const pattern = () => data.layers[state.layer][state.head];
  const make = (name, parent, properties = {}) => {
    const element = document.createElement(name);
    Object.assign(element, properties);
    parent.append(element);
    return element;
  };
  const draw = (name, parent, attributes = {}, text = "") => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    element.textContent = text;
    parent.append(element);
    return element;
  };
  const short = (text) => [...text].length > 12 ? [...text].slice(0, 11).join("") + "…" : text;

  // One button with a thumbnail for each head; a row for each layer.
  make("p", root, { className: "hint", textContent: "Layer and head (L, H):" });
  const heads = make("div", root, { className: "heads" });
  heads.style.gridTemplateColumns = `repeat(${data.layers[0].length}, max-content)`;
  const buttons = data.layers.map((layer, l) => layer.map((values, h) => {
    const button = make("button", heads, { type: "button" });
    const canvas = make("canvas", button, { width: count, height: count });
    make("span", button, { textContent: `L${l}H${h}` });
    button.setAttribute("aria-label", `layer ${l}, head ${h}`);
    const context = canvas.getContext("2d");
    context.fillStyle = getComputedStyle(root).getPropertyValue("--accent");
    for (let row = 0; row < count; row++) {
      for (let column = 0; column < count; column++) {
        context.globalAlpha = Math.min(1, Math.max(0, weight(values, row, column)));
        context.fillRect(column, row, 1, 1);
      }
    }
    button.addEventListener("click", () => { state.layer = l; state.head = h; show(); });
    return button;
  }));
  heads.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    const target = step && buttons[state.layer + step[0]]?.[state.head + step[1]];
    if (!target) return;
    event.preventDefault();
    target.click();
    target.focus();
  });

  const status = make("p", root, { className: "status" });
  status.setAttribute("role", "status");

  // The matrix: rows are destinations, columns sources.
  const cell = Math.max(9, Math.min(24, Math.floor(640 / count)));
  const longest = Math.max(...data.tokens.map((token) => [...short(token)].length));
  const left = 44 + longest * 7.4, top = 40 + longest * 6.4, size = cell * count;
  const picture = make("div", root, { className: "picture" });
  const width = left + size + 24 + longest * 4, height = top + size + 8;
  const svg = draw("svg", picture, { width, height, viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "img" });
  draw("text", svg, { class: "axis", x: left, y: 14 }, "source: attended to →");
  draw("text", svg, { class: "axis", transform: `translate(14 ${top + size}) rotate(-90)` }, "destination: attends →");
  draw("rect", svg, { class: "frame", x: left, y: top, width: size, height: size });
  const labels = { row: [], column: [] };
  const cells = [];
  data.tokens.forEach((token, at) => {
    const middle = (at + .5) * cell;
    const y = top + middle + 4, x = left + middle + 3;
    labels.row.push(draw("text", svg, { x: left - 6, y, "text-anchor": "end" }, short(token)));
    labels.column.push(draw("text", svg, { transform: `translate(${x} ${top - 6}) rotate(-60)` }, short(token)));
    for (let column = 0; column < (data.causal ? at + 1 : count); column++) {
      const place = { class: "cell", x: left + column * cell, y: top + at * cell, width: cell, height: cell };
      cells.push([at, column, draw("rect", svg, place)]);
    }
  });
  const cursor = draw("rect", svg, { class: "cursor", width: cell, height: cell });
  const moveTo = (row, column) => {
    state.row = Math.min(count - 1, Math.max(0, row));
    state.column = Math.min(data.causal ? state.row : count - 1, Math.max(0, column));
    point();
  };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const row = Math.floor((event.clientY - box.top - top) / cell);
    const column = Math.floor((event.clientX - box.left - left) / cell);
    if (row >= 0 && row < count && column >= 0 && column < count) moveTo(row, column);
  });
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    moveTo(state.row + step[0], state.column + step[1]);
  });

  const strongest = (row) => {
    let best = 0;
    for (let column = 0; column < count; column++) {
      if (weight(pattern(), row, column) > weight(pattern(), row, best)) best = column;
    }
    return best;
  };

  // The text: choose a token to see what it attends to.
  make("p", root, { className: "hint", textContent: "What the marked token attends to (choose another):" });
  const strip = make("p", root, { className: "tokens" });
  const words = data.tokens.map((token, at) => {
    const word = make("button", strip, { type: "button", className: "token", textContent: token });
    const choose = () => moveTo(at, strongest(at));
    word.addEventListener("pointerenter", choose);
    word.addEventListener("focus", choose);
    word.addEventListener("click", choose);
    return word;
  });
  make("p", root, { className: "hint", textContent: "Move over the picture or the text, or use Tab and the arrow keys." });

  // What depends on the cell under the cursor.
  const point = () => {
    const { layer, head, row, column } = state;
    const value = weight(pattern(), row, column);
    status.textContent = `L${layer}H${head}: “${data.tokens[row]}” (${row}) → “${data.tokens[column]}” (${column}): ${value.toFixed(4)}`;
    cursor.setAttribute("x", left + column * cell);
    cursor.setAttribute("y", top + row * cell);
    labels.row.forEach((label, at) => label.classList.toggle("chosen", at === row));
    labels.column.forEach((label, at) => label.classList.toggle("chosen", at === column));
    words.forEach((word, at) => {
      const strength = weight(pattern(), row, at);
      word.style.setProperty("--strength", `${100 * strength}%`);
      word.title = strength.toFixed(4);
      word.classList.toggle("chosen", at === row);
    });
  };
  // What depends on the head.
  const show = () => {
    buttons.flat().forEach((button) => button.setAttribute("aria-pressed", "false"));
    buttons[state.layer][state.head].setAttribute("aria-pressed", "true");
    svg.setAttribute("aria-label", `attention pattern of layer ${state.layer}, head ${state.head}; arrow keys move`);
    for (const [row, column, rect] of cells) rect.setAttribute("fill-opacity", weight(pattern(), row, column));
    point();
  };
  state.column = strongest(state.row);
  show();
}
