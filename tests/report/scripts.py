"""What a browser is asked about a whole page."""

UNNAMED = """
const named = (each) => each.labels?.length || each.ariaLabel || each.textContent.trim() ||
  document.getElementById(each.getAttribute("aria-labelledby"));
const parts = "input, select, button, section, nav, [role=region]";
const faulty = [...document.querySelectorAll(parts)].filter((e) => !named(e));
const images = [...document.querySelectorAll("img")].filter((e) => !e.hasAttribute("alt"));
const shown = [...document.querySelectorAll("main img")].filter((e) => e.alt === "" && !e.closest(".stack"));
return [...faulty, ...images, ...shown].map((each) => each.id || each.outerHTML.slice(0, 120));
"""
"""What has no name for a screen reader. Copies of the photo below a map have none: the map tells of both."""

CONTRAST = """
const parse = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
const light = (rgb) => {
  const [r, g, b] = rgb.slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const paper = (element) => {
  for (let each = element; each; each = each.parentElement) {
    const colour = parse(getComputedStyle(each).backgroundColor);
    if (colour.length && colour[3] !== 0) return colour;
  }
  return [255, 255, 255];
};
const faint = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || !element.checkVisibility() || element.closest("script, style")) continue;
  const pair = [light(parse(getComputedStyle(element).color)), light(paper(element))].sort((a, b) => b - a);
  const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
  const told = `${ratio.toFixed(2)} ${element.tagName} ${element.className} ${element.textContent.slice(0, 40)}`;
  if (ratio < 4.5) faint.push(told);
}
return faint;
"""
"""Words with less than 4.5 : 1 between them and what they stand on (WCAG 2.2, 1.4.3)."""
