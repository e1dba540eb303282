"""The CSS of report.html: light and dark, phone and print, without any file beside it.

The colours of the curves are Okabe and Ito's, which people with any colour vision tell apart, the darker ones
on white (jfly.uni-koeln.de/color).
"""

CSS = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1b1b1b; --faint: #6b6b6b; --grid: #e2e2e2;
  --panel: #f5f5f3; --series1: #0072b2; --series2: #d55e00; --series3: #007a5a; --series4: #a3528a;
  --series5: #7a6a00; --right: 0, 114, 178; --wrong: 213, 94, 0; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181c; --ink: #ececec; --faint: #a5a5a5; --grid: #3a3d42;
  --panel: #202329; --series1: #56b4e9; --series2: #e69f00; --series3: #2fc79c; --series4: #e29bc8;
  --series5: #f0e442; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 66rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.3rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid var(--grid); }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
p, ol, pre { margin: .5rem 0; }
.lead { font-size: 1.15rem; max-width: 48rem; }
.note, figcaption, caption, .about { color: var(--faint); font-size: .875rem; }
.figures { display: grid; gap: 1rem 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }
figure { margin: 0; max-width: 31rem; min-width: 0; break-inside: avoid; }
svg { display: block; width: 100%; height: auto; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
svg text { font-family: system-ui, sans-serif; }
.scroll { overflow: auto; max-width: 100%; max-height: 34rem; margin: .6rem 0; }
.scroll:focus-visible { outline: 2px solid var(--series1); }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums;
  overflow-wrap: break-word; }
td { white-space: nowrap; }
caption { text-align: left; min-width: min(20rem, 80vw); padding-bottom: .3rem; }
th, td { padding: .25rem .7rem .25rem 0; text-align: right; vertical-align: top;
  border-bottom: 1px solid var(--grid); }
th { max-width: 16rem; }
tbody th { min-width: 6rem; }
th:first-child { text-align: left; font-weight: 500; }
thead th:nth-child(n) { font-weight: 600; vertical-align: bottom; }
.matrix th, .matrix td { padding: .3rem .5rem; border: 1px solid var(--grid); }
.matrix th { min-width: 3.5rem; max-width: 9rem; }
.words td, .words th { text-align: left; }
.words td { white-space: normal; min-width: 9rem; max-width: 30rem; overflow-wrap: anywhere; }
td.right { font-weight: 700; background: rgba(var(--right), var(--share)); }
td.wrong { background: rgba(var(--wrong), var(--share)); }
.bar { display: inline-block; width: 3.5rem; height: .6rem; margin-right: .5rem; background: var(--grid); }
.bar i { display: block; height: 100%; background: var(--series1); }
ol.texts { padding: 0; list-style: none; display: grid; gap: .6rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
ol.texts li { background: var(--panel); padding: .6rem .8rem; min-width: 0; break-inside: avoid; }
.text { margin: .2rem 0; overflow: hidden; }
.escape { unicode-bidi: isolate; direction: ltr; color: var(--series2); font-family: monospace; font-size: .9em; }
.cut { color: var(--faint); font-style: italic; }
pre { background: var(--panel); padding: .8rem; white-space: pre-wrap; overflow: hidden; font-size: .85rem; }
@media print {
  :root { color-scheme: light; --paper: #ffffff; --ink: #000000; --faint: #444444; --grid: #cccccc;
    --panel: #f5f5f3; --series1: #0072b2; --series2: #d55e00; --series3: #007a5a; --series4: #a3528a;
    --series5: #7a6a00; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  h2, h3 { break-after: avoid; }
  .scroll { overflow: visible; max-height: none; }
  .figures { grid-template-columns: 1fr 1fr; }
  table { font-size: 8pt; }
  th, td { white-space: normal; overflow-wrap: anywhere; }
  tbody th { min-width: 0; }
  .matrix th, .matrix td { padding: 1pt 2pt; font-size: 7pt; min-width: 0; max-width: 5rem; }
}
"""
