"""One file for each family of charts; they import altair, so `moefps.reporting.figures` imports them when asked."""
