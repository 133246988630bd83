"use strict";
// Says how old the page is by the clock of who reads it; draws the charts in its colours, again when those change.
const STALE_HOURS = 36; // each night reads again: one that did not is noticed
const FAST_CLOCK_HOURS = 1; // clocks may differ so much
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

function spelledAge(hours) {
  const [number, unit] = hours >= 48 ? [hours / 24, "day"] : hours >= 1 ? [hours, "hour"] : [hours * 60, "minute"];
  const whole = Math.floor(Math.max(number, 0));
  return `${whole.toLocaleString("en")} ${unit}${whole === 1 ? "" : "s"}`;
}

function showAge() {
  const read = document.getElementById("read");
  if (!read) return; // nothing is loaded
  const hoursSince = (time) => (Date.now() - Date.parse(time.dateTime)) / 3600000;
  const isAhead = hoursSince(read) < -FAST_CLOCK_HOURS;
  const isStale = hoursSince(read) > STALE_HOURS;
  for (const place of document.querySelectorAll("[data-age]")) {
    const hours = hoursSince(document.getElementById(place.dataset.age));
    place.textContent = isAhead ? "" : ` (${spelledAge(hours)} ago)`;
  }
  const mark = document.getElementById("age");
  mark.className = `mark ${isStale || isAhead ? "bad" : "good"}`;
  mark.textContent = isAhead ? "? unknown" : isStale ? "✗ stale" : "✓ fresh";
  const warning = document.getElementById("stale");
  warning.hidden = !isStale && !isAhead;
  warning.textContent = isAhead
    ? "✗ The age of this page is unknown: the clock of this device is behind. "
    : `✗ Stale: the data was last read ${spelledAge(hoursSince(read))} ago. `;
}

showAge();
setInterval(showAge, 60000); // a page may stay open for days
isDark.addEventListener("change", draw);
draw();
