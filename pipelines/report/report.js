"use strict";
// Shows the page's age by the reader's clock, and draws the charts in the page's colours, again when those change.
const STALE_HOURS = 36; // data is read every night: one missed night makes the page stale
const CLOCK_TOLERANCE_HOURS = 1; // how far this device's clock may be behind
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
    const container = document.getElementById(id);
    spec.params = spec.params.map((param) => ({ name: param.name, value: colour(param.name) }));
    try {
      await vegaEmbed(container, spec, {
        actions: false,
        ast: true,
        config: config(),
        renderer: "svg",
        tooltip: { theme: isDark.matches ? "dark" : "light" },
      });
    } catch (error) {
      container.textContent = "This chart could not be drawn; its numbers are in the table below.";
      console.error(id, error);
    }
  }
  document.documentElement.dataset.drawn = isDark.matches ? "dark" : "light";
}

function formatAge(hours) {
  const [number, unit] = hours >= 48 ? [hours / 24, "day"] : hours >= 1 ? [hours, "hour"] : [hours * 60, "minute"];
  const whole = Math.floor(Math.max(number, 0));
  return `${whole.toLocaleString("en")} ${unit}${whole === 1 ? "" : "s"}`;
}

function showAge() {
  const read = document.getElementById("read");
  if (!read) return; // nothing is loaded
  const hoursSince = (time) => (Date.now() - Date.parse(time.dateTime)) / 3600000;
  const isClockBehind = hoursSince(read) < -CLOCK_TOLERANCE_HOURS;
  const isStale = hoursSince(read) > STALE_HOURS;
  for (const place of document.querySelectorAll("[data-age]")) {
    const hours = hoursSince(document.getElementById(place.dataset.age));
    place.textContent = isClockBehind ? "" : ` (${formatAge(hours)} ago)`;
  }
  const mark = document.getElementById("age");
  mark.className = `mark ${isStale || isClockBehind ? "bad" : "good"}`;
  mark.textContent = isClockBehind ? "? unknown" : isStale ? "✗ stale" : "✓ fresh";
  const warning = document.getElementById("stale");
  warning.hidden = !isStale && !isClockBehind;
  warning.textContent = isClockBehind
    ? "✗ The age of this page is unknown: this device's clock is behind. "
    : `✗ Stale: the data was last read ${formatAge(hoursSince(read))} ago. `;
}

showAge();
setInterval(showAge, 60000); // a page may stay open for days
isDark.addEventListener("change", draw);
draw();
