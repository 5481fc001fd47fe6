// Charts: each is drawn from its specification in the page, one after another, so that the page answers meanwhile.
"use strict";
(async () => {
  const draw = async (figure) => {
    const place = figure.querySelector(".chart");
    const specification = JSON.parse(figure.querySelector("script").textContent);
    try {
      await window.vegaEmbed(place, specification, {
        renderer: "svg",
        // Expressions are interpreted, not compiled: the page forbids itself to make code of text.
        ast: true,
        actions: { export: { svg: true, png: true }, source: false, compiled: false, editor: false },
        scaleFactor: { svg: 1, png: 2 },
        downloadFileName: place.dataset.name,
        tooltip: { theme: "light" },
      });
    } catch (error) {
      place.textContent = `This chart could not be drawn: ${error.message}`;
      console.error(error);
    }
  };
  for (const figure of document.querySelectorAll("figure")) {
    await draw(figure);
    await new Promise((next) => setTimeout(next, 0));
  }
  document.documentElement.dataset.charts = "drawn";
})();
