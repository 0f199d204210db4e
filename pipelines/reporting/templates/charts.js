// A chart becomes live when the pointer first enters it. Without this script the chart stays a picture.
(() => {
  const SCALED = /^(labelFontSize|titleFontSize|fontSize|strokeWidth|symbolStrokeWidth|padding|labelPadding|columnPadding|offset|dx|dy|step|width|height|labelLimit)$/;
  let loading;

  async function code() {
    const bytes = Uint8Array.from(atob(document.getElementById("vega").textContent.trim()), c => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  }

  // The page enlarges the picture to the width of its column, so draw the chart at that size.
  function enlarged(value, by, key) {
    if (Array.isArray(value)) return value.map(v => enlarged(v, by));
    if (value && typeof value === "object" && key !== "values")
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, enlarged(v, by, k)]));
    if (typeof value !== "number") return value;
    return key === "size" ? value * by * by : SCALED.test(key) ? value * by : value;
  }

  async function open(figure, data) {
    await (loading ??= code());
    const still = figure.querySelector("svg");
    const by = still.getBoundingClientRect().width / still.viewBox.baseVal.width;
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const live = Object.assign(document.createElement("div"), {className: "live"});
    await vegaEmbed(live, enlarged(JSON.parse(data.textContent), by), {renderer: "svg", actions: false, tooltip: {theme: dark ? "dark" : "light"}});
    live.setAttribute("role", "img");
    live.setAttribute("aria-label", still.getAttribute("aria-label"));
    still.replaceWith(live);
  }

  const charts = window.DecompressionStream ? [...document.querySelectorAll("figure > script")] : [];
  for (const data of charts) {
    const figure = data.parentElement;
    figure.addEventListener("pointerenter", () => open(figure, data), {once: true});
  }
  if (charts.length && matchMedia("(hover: hover)").matches) {
    const hint = Object.assign(document.createElement("p"), {className: "note"});
    hint.textContent = "In a chart, point at a mark to see its values. Hold Shift and turn the wheel to zoom, drag to move, double-click to go back.";
    charts[0].closest(".figures").before(hint);
  }
})();
