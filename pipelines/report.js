"use strict";
// Draws the charts in the page's colours, and again when those change.
const charts = JSON.parse(document.getElementById("charts").textContent);
const isDark = matchMedia("(prefers-color-scheme: dark)");

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
}

function config() {
  const ink = colour("ink");
  const faint = colour("faint");
  const font = getComputedStyle(document.body).fontFamily;
  return {
    background: null,
    font: font,
    view: { stroke: null },
    axis: { labelColor: ink, titleColor: ink, gridColor: faint, domainColor: faint, tickColor: faint, titleFontWeight: "normal", labelFontSize: 12 },
    legend: { labelColor: ink, titleColor: ink, titleFontWeight: "normal", labelFontSize: 12 },
  };
}

async function draw() {
  for (const [id, spec] of Object.entries(charts)) {
    const place = document.getElementById(id);
    spec.params = spec.params.map((param) => ({ name: param.name, value: colour(param.name) }));
    try {
      await vegaEmbed(place, spec, {
        actions: false,
        ast: true,
        config: config(),
        renderer: "svg",
        tooltip: { theme: isDark.matches ? "dark" : "light" },
      });
    } catch (error) {
      place.textContent = "This chart could not be drawn; its numbers are in the table below.";
      console.error(id, error);
    }
  }
  document.documentElement.dataset.drawn = isDark.matches ? "dark" : "light";
}

isDark.addEventListener("change", draw);
draw();
