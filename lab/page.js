(() => {
  const plots = [...document.querySelectorAll(".plot")];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const ink = () => (dark.matches ? "#e6eaef" : "#24292f");
  const quiet = (plot) => {
    // the numbers are in the tables; a screen reader would only hear loose letters
    [...plot.querySelectorAll("svg")].forEach((svg, i) => {
      svg.setAttribute(...(i ? ["aria-hidden", "true"] : ["role", "img"]));
      if (!i) svg.setAttribute("aria-label", plot.dataset.label);
    });
  };
  for (const plot of plots) {
    const holder = plot.closest("figure");
    const { data, layout } = JSON.parse(holder.querySelector("script").textContent);
    layout.font = { ...layout.font, color: ink() };
    plot.replaceChildren();
    Plotly.newPlot(plot, data, layout, {
      responsive: true,
      displaylogo: false,
      showTips: false,
      toImageButtonOptions: { filename: holder.id, scale: 2 },
      // named one by one: the default row has a button that would send the figure to a service
      modeBarButtons: [["toImage"], ["zoom2d", "pan2d", "resetScale2d"]],
    }).then(() => quiet(plot));
  }
  const all = (change) => plots.forEach((plot) => Plotly.relayout(plot, change));
  dark.addEventListener("change", () => all({ "font.color": ink() }));
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((one) => (one.open = true));
    all({ "font.color": "#000000", width: 680 });
  });
  addEventListener("afterprint", () => {
    closed.forEach((one) => (one.open = false));
    all({ "font.color": ink(), width: null, autosize: true });
  });
})();
