"use strict";

const all = (selector, within = document) => [...within.querySelectorAll(selector)];

function made(tag, name, ...children) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.append(...children);
  return element;
}

/** A copy of a picture for the eye alone; its size is known before it is decoded, so that nothing moves. */
function picture(of, name) {
  const image = made("img", name);
  image.src = of.src;
  image.alt = "";
  image.width = of.getAttribute("width");
  image.height = of.getAttribute("height");
  return image;
}

/** A map over the photo: the photo, and on it a layer whose opacity the slider sets. */
function lay(stack, photo, signed) {
  const map = stack.querySelector(".map");
  if (!photo) return;
  const over = made("span", signed ? "over signed" : "over");
  if (signed) over.append(picture(photo, "grey"));
  over.append(map);
  stack.append(picture(photo, "photo"), over);
}

function maps(section) {
  const article = section.closest("article");
  const photo = article.querySelector(".photo img:not(.whole)");
  const tiles = all(".tile", section);
  const viewer = section.querySelector(".viewer");
  const status = section.querySelector(".status");
  const choices = all(".choice", section);
  section.classList.toggle("single", tiles.length === 1);
  for (const tile of tiles) {
    lay(tile.querySelector(".stack"), photo, "signed" in tile.dataset);
    const button = made("button", "pick");
    button.type = "button";
    button.setAttribute("aria-label", `Show ${tile.querySelector(".map").alt}`);
    button.addEventListener("click", () => choose(tile, true));
    tile.append(button);
  }

  const chosen = (choice) => (choice.querySelector("select") ?? choice.querySelector("input:checked")).value;
  const put = (choice, value) => {
    const select = choice.querySelector("select");
    if (select) select.value = value;
    for (const input of all("input", choice)) input.checked = input.value === value;
  };

  const slider = section.querySelector("input[type=range]");
  const opacity = [45, 100]; // signed maps are shaded by the photo, so that both are seen in full
  let signed = false;
  let shown = tiles[0];
  function slide() {
    if (!slider) return;
    slider.value = opacity[signed ? 1 : 0];
    section.style.setProperty("--alpha", String(opacity[0] / 100));
    section.style.setProperty("--alpha-signed", String(opacity[1] / 100));
    section.querySelector("output").textContent = `${slider.value} %`;
    slider.setAttribute("aria-valuetext", `${slider.value} % map`);
  }

  /** Shows a tile in the viewer, and has every switch say so. */
  function choose(tile, told) {
    const { technique, layer, target } = tile.dataset;
    for (const choice of choices) {
      const { choice: kind, technique: owner } = choice.dataset;
      choice.hidden = owner !== "" && owner !== technique;
      if (!choice.hidden) put(choice, { technique, layer, target }[kind]);
    }
    for (const other of tiles) other.querySelector(".pick").setAttribute("aria-pressed", String(other === tile));
    shown = tile;
    signed = "signed" in tile.dataset;
    slide();
    const copy = tile.querySelector(".stack").cloneNode(true);
    viewer.querySelector(".stack").replaceWith(copy);
    viewer.querySelector(".legend").replaceChildren(tile.querySelector(".bar").cloneNode(true));
    viewer.querySelector("figcaption").replaceChildren(...tile.querySelector("figcaption").cloneNode(true).childNodes);
    if (told) status.textContent = `Shown: ${tile.querySelector(".map").alt}`;
  }

  /** What is shown but for the switch that was turned, or what is nearest to that. */
  function turned(choice) {
    const want = { ...shown.dataset, [choice.dataset.choice]: chosen(choice) };
    const fits = ({ dataset }) =>
      (dataset.technique === want.technique ? 4 : 0) +
      (dataset.layer === want.layer ? 2 : 0) +
      (dataset.target === want.target ? 1 : 0);
    return tiles.reduce((best, tile) => (fits(tile) > fits(best) ? tile : best));
  }

  for (const choice of choices) choice.addEventListener("change", () => choose(turned(choice), true));
  if (slider)
    slider.addEventListener("input", () => {
      opacity[signed ? 1 : 0] = slider.value;
      slide();
    });
  choose(tiles[0], false);
  const preview = document.querySelector(`[data-preview="${CSS.escape(section.dataset.item)}"]`);
  if (preview && !article.querySelector(".whole")) {
    preview.append(...tiles[0].querySelector(".stack").cloneNode(true).childNodes);
    for (const image of all("img", preview)) image.alt = "";
  }
}

function channels(section) {
  const sheets = all(".sheet", section);
  const select = section.querySelector(".choice");
  const steps = all("button[data-step]", section);
  const where = section.querySelector(".where");
  let layer = "0";
  let page = 0;
  const pages = () => sheets.filter((sheet) => sheet.dataset.layer === layer);
  function show() {
    const mine = pages();
    page = Math.min(Math.max(page, 0), mine.length - 1);
    for (const sheet of sheets) sheet.hidden = sheet !== mine[page];
    for (const step of steps) {
      const ends = step.dataset.step === "1" ? page === mine.length - 1 : page === 0;
      step.setAttribute("aria-disabled", String(ends));
      step.hidden = mine.length === 1;
    }
    where.textContent = mine[page].dataset.told;
  }
  for (const step of steps)
    step.addEventListener("click", () => {
      page += Number(step.dataset.step);
      show();
    });
  if (select)
    select.addEventListener("change", () => {
      layer = (select.querySelector("select") ?? select.querySelector("input:checked")).value;
      page = 0;
      show();
    });
  show();
}

function copying(button) {
  const text = document.getElementById(button.dataset.copy);
  const told = button.parentElement.querySelector(".copied");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text.textContent);
      told.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(text);
      told.textContent = "Selected: copy it from here";
    }
  });
}

document.body.className = "live";
all(".maps").forEach(maps);
all(".channels").forEach(channels);
all("button[data-copy]").forEach(copying);
for (const preview of all("[data-preview]")) {
  const photo = document.getElementById(preview.dataset.preview).querySelector(".photo img");
  if (!preview.firstChild && photo) preview.append(picture(photo, "photo"));
}
