"""How the page looks: light and dark, wide and narrow, on paper. Okabe and Ito's colours."""

STYLE = """
:root { color-scheme: light dark;
  --ground: #ffffff; --raised: #f5f6f7; --ink: #1b1b1b; --quiet: #57595c; --line: #cfd3d7;
  --good: #007a5a; --bad: #c44e00; --moved: #0072b2; --open: #6b6e72; --none: #0072b2;
  --band: #00825f26; --p0: #0072b2; --p1: #56b4e9; --p2: #b9bec4; --p3: #b06a9a; --p4: #d99000;
  --p5: #8a6d3b; }
@media (prefers-color-scheme: dark) { :root {
  --ground: #141517; --raised: #1e2023; --ink: #ececec; --quiet: #a9adb2; --line: #43474c;
  --good: #35c79b; --bad: #ff8a4d; --moved: #5cb3f0; --open: #a0a4a9; --none: #5cb3f0;
  --band: #35c79b2e; --p0: #5cb3f0; --p1: #2a6f9e; --p2: #5b6066; --p3: #cc79a7;
  --p4: #e6a93a; --p5: #c9a66b; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body { margin: 0 auto; max-width: 68rem; padding: 0 1.25rem 4rem; background: var(--ground);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
a { color: var(--moved); } :focus-visible { outline: 3px solid var(--moved); outline-offset: 2px; }
.skip { position: absolute; left: -99rem; } .skip:focus { left: 1rem; top: 1rem; padding: .5rem;
  background: var(--ground); }
h1 { font-size: 1.5rem; margin: 1.5rem 0 .25rem; } h2 { font-size: 1.35rem; margin: 3rem 0 .5rem;
  padding-top: 1rem; border-top: 2px solid var(--line); }
h3 { font-size: 1.05rem; margin: 2rem 0 .25rem; } h4 { font-size: 1rem;
  margin: 1.5rem 0 .25rem; } p, ul { margin: .4rem 0; }
.quiet, footer { color: var(--quiet); font-size: .9rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; padding: 0; }
.strip { display: grid; grid-template-columns: repeat(auto-fill, minmax(15.5rem, 1fr)); gap: .75rem;
  list-style: none; padding: 0; margin: 1rem 0; }
.strip > li { background: var(--raised); border-left: 5px solid var(--edge); border-radius: 4px;
  padding: .6rem .8rem; }
.strip .product { display: block; color: var(--quiet); font-size: .85rem; }
.strip .told { display: block; }
.bad { --edge: var(--bad); } .good { --edge: var(--good); } .moved { --edge: var(--moved); }
.open { --edge: var(--open); } .none { --edge: var(--none); }
.badge { display: inline-flex; align-items: center; gap: .3rem; font-weight: 600;
  white-space: nowrap; margin-right: .4rem; flex: none; } .badge svg { flex: none; }
svg { fill: var(--edge, var(--none)); } .hollow { fill: none; stroke: var(--edge);
  stroke-width: 2.5; }
figure { margin: .75rem 0 1.25rem; } figcaption { margin-bottom: .6rem; max-width: 46rem; }
.rows { list-style: none; margin: 0; padding: 0; }
.rows li, .scale { display: grid; align-items: center; gap: 0 1rem;
  grid-template-columns: minmax(0, 17rem) minmax(0, 1fr) minmax(0, 16rem); }
.rows li { border-top: 1px solid var(--line); padding: .15rem 0; }
.rows .told, .rows .who { font-size: .92rem; line-height: 1.35; }
.rows .who { display: flex; align-items: baseline; } .who > span { min-width: 0; }
.beyond { fill: none; stroke: var(--ink); stroke-width: 1.5; }
.track, .bar, .plane svg { display: block; width: 100%; overflow: visible; }
.reach { stroke: var(--ink); stroke-width: 1.5; } .held { stroke: var(--ink); stroke-width: 1.5;
  stroke-dasharray: 5 3; } .edge { stroke: var(--quiet); stroke-dasharray: 2 4; }
.band { fill: var(--band); } .grid, line.tick { stroke: var(--line); } .path { stroke: var(--none);
  stroke-width: 2; } .ground { fill: var(--raised); }
text { fill: var(--quiet); font-size: 12px; } .plane { padding-left: 4rem; max-width: 46rem; }
.part { stroke: var(--ground); stroke-width: 1; }
.p0 { fill: var(--p0); } .p1 { fill: var(--p1); } .p2 { fill: var(--p2); } .p3 { fill: var(--p3); }
.p4 { fill: var(--p4); } .p5 { fill: var(--p5); }
.s0 { fill: var(--p0); } .s1 { fill: var(--p4); } .s2 { fill: var(--bad); }
.shade { fill: var(--p4); opacity: .22; }
.heat td { text-align: right; min-width: 0; white-space: nowrap; padding: .25rem .5rem;
  background: color-mix(in srgb, var(--p0) var(--heat, 0%), transparent); }
.heat th { white-space: nowrap; } .heat th + th { text-align: right; padding: .25rem .5rem; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.25rem; list-style: none; padding: 0;
  margin-top: .4rem; } .legend svg { margin-right: .4rem; vertical-align: -2px; }
details { margin: .5rem 0; } summary { cursor: pointer; color: var(--moved); }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .88rem; margin: .5rem 0;
  font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0;
  border-bottom: 1px solid var(--line); } th { font-weight: 600; }
td:last-child { min-width: 11rem; } .heat td:last-child { min-width: 0; }
a.behind { color: inherit; text-decoration: underline dotted var(--quiet);
  text-underline-offset: 3px; } a.behind:hover { color: var(--moved); }
nav [aria-current] { color: inherit; font-weight: 600; text-decoration: none; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .15rem 1.25rem;
  margin: 0; font-size: .92rem; } dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; }
.stages li { grid-template-columns: 5rem minmax(0, 1fr) minmax(0, 13rem); }
.look th, .look td { white-space: nowrap; } .look th[scope=row] { font-weight: 400; }
.calls .quiet { font-size: .85rem; }
.calls li { grid-template-columns: minmax(0, 22rem) minmax(0, 1fr) minmax(0, 13rem); }
.look h2 { font-size: 1.15rem; margin-top: 1.75rem; padding-top: .75rem; border-top-width: 1px; }
.look header nav { margin-top: .75rem; } .look h1 { margin-top: 1rem; }
@media (max-width: 48rem) { .rows li, .scale { grid-template-columns: minmax(0, 1fr); }
  .rows li { padding: .5rem 0; } body { padding: 0 1rem 3rem; } .scale span { display: none; } }
@media print { details > * { display: block; } nav, .skip { display: none; }
  body { max-width: none; } }
"""
