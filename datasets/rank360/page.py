"""The report of `--check` as one HTML page that needs no other file: tables, plots, pictures."""

import base64
import collections
import html

import numpy as np

from rank360.checks import ERROR, NOTE
from rank360.plots import bar_plot, histogram, scatter_plot
from rank360.review import Record, Review
from rank360.statistics import Statistics
from rank360.thumbnails import draw_thumbnail

MAX_PICTURES = {ERROR: 24, NOTE: 12}
NUM_SAMPLES = 6
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d1d22; background: #fff; margin: 2rem auto;
  max-width: 1120px; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
td, th { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0;
  border-bottom: 1px solid #e2e2e8; overflow-wrap: anywhere; }
td:nth-child(-n+2) { min-width: 7rem; }
.number { font-size: 1.7rem; font-weight: 600; }
.tiles { display: flex; flex-wrap: wrap; gap: 2.5rem; margin: 1.2rem 0; }
.error { color: #b3261e; } .note { color: #8a5a00; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(480px, 1fr)); gap: 1.2rem; }
figure { margin: 0; } figure img, figure svg { width: 100%; display: block; border-radius: 4px; }
figcaption { font-size: .85rem; overflow-wrap: anywhere; margin-top: .3rem; }
svg .bar { fill: #3b6fd4; } svg .point { fill: #3b6fd4; opacity: .35; }
svg .mean { fill: none; stroke: #d9480f; stroke-width: 2.5; }
svg .grid { stroke: #d7d7de; } svg text { font-size: 11px; fill: #55555f; }
svg text.title { font-size: 12px; fill: #1d1d22; }
"""


def build_page(review: Review, labels: Statistics) -> str:
  """Returns the page."""
  parts = [
    f"<h1>{html.escape(str(review.path))}</h1>",
    f"<p>format {review.format}, splits by {html.escape(review.split_rule)}</p>",
    *(f'<p class="note">{html.escape(note)}</p>' for note in review.notes),
    _tiles(review, labels),
    _findings(review, ERROR, "Errors: these records are bad"),
    _findings(review, NOTE, "Notes: worth a look"),
    "<h2>Labels of the good records</h2>",
    f'<div class="grid">{"".join(_plots(labels))}</div>',
  ]
  with_error = [record for record in review.records if record.is_bad]
  with_note = [record for record in review.good if record.findings]
  clean = [record for record in review.good if not record.findings]
  # evenly over the folder, so that one end of it does not stand for all
  sample = [
    clean[i] for i in np.linspace(0, len(clean) - 1, min(NUM_SAMPLES, len(clean)), dtype=int)
  ]
  parts += [
    _pictures("Bad records", with_error, "id", MAX_PICTURES[ERROR]),
    _pictures("Records with notes", with_note, "id", MAX_PICTURES[NOTE]),
    _pictures("A sample without findings", sample, "rank", NUM_SAMPLES),
  ]
  return (
    '<!doctype html><html lang="en"><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width">'
    f"<title>Check of {html.escape(review.path.name)}</title><style>{_STYLE}</style>"
    f"<body>{''.join(parts)}</body></html>\n"
  )


def _tiles(review: Review, labels: Statistics) -> str:
  numbers = [
    (len(review.records), "records", ""),
    (len(review.bad), "bad", ERROR if review.bad else ""),
    (len(list(review.findings(NOTE))), "notes", NOTE),
    (int(labels.objects_per_image.sum()), "objects", ""),
    *((count, split, "") for split, count in labels.splits.items()),
  ]
  tiles = (
    f'<div><div class="number {css}">{number}</div>{html.escape(name)}</div>'
    for number, name, css in numbers
  )
  return f'<div class="tiles">{"".join(tiles)}</div>'


def _findings(review: Review, severity: str, title: str) -> str:
  findings = list(review.findings(severity))
  if not findings:
    return f"<h2>{title}</h2><p>None.</p>"
  kinds = collections.Counter(finding.kind for finding in findings).most_common()
  rows = (
    f'<tr><td>{html.escape(f.scene_id)}</td><td class="{severity}">{f.kind}</td>'
    f"<td>{html.escape(f.text)}</td></tr>"
    for f in findings
  )
  return (
    f"<h2>{title}</h2><p>{', '.join(f'{kind}: {count}' for kind, count in kinds)}</p>"
    f"<table><tr><th>record<th>kind<th>file and reason</tr>{''.join(rows)}</table>"
  )


def _plots(labels: Statistics) -> list[str]:
  counts = labels.objects_per_image
  if not counts.sum():
    return ["<p>No objects.</p>"]
  per_image = np.bincount(counts)
  log_area = np.log10(labels.area_sr)
  smallest = np.floor(log_area.min())
  ticks = np.arange(smallest, max(np.ceil(log_area.max()), smallest + 1) + 1)
  bins = np.linspace(-1, 1, 11)
  plots = [
    bar_plot(range(len(per_image)), per_image.tolist(), "objects in a picture", "pictures"),
    bar_plot(list(labels.rank_counts), list(labels.rank_counts.values()), "rank", "objects"),
    scatter_plot(
      labels.lat_deg, labels.importance, [-90, -45, 0, 45, 90], "latitude in degrees", "importance"
    ),
    scatter_plot(log_area, labels.importance, ticks, "log10 of solid angle in sr", "importance"),
    histogram(
      labels.by_latitude, bins, "rho of importance and nearness to the horizon", "pictures"
    ),
    histogram(labels.by_area, bins, "rho of importance and solid angle", "pictures"),
  ]
  return [f"<figure>{plot}</figure>" for plot in plots]


def _pictures(title: str, records: list[Record], number_by: str, limit: int) -> str:
  if not records:
    return ""
  shown = "" if len(records) <= limit else f", the first {limit} of {len(records)}"
  figures = "".join(_figure(record, number_by) for record in records[:limit])
  return (
    f"<h2>{title}{shown}</h2><p>The numbers are the objects' {number_by}s; colours go from red "
    f'(rank 1) to violet.</p><div class="grid">{figures}</div>'
  )


def _figure(record: Record, number_by: str) -> str:
  scene = record.scene
  picture = "<p>no picture: it, or its annotation, cannot be read</p>"
  if scene is not None and scene.image_file is not None:
    data = base64.b64encode(draw_thumbnail(scene, number_by=number_by)).decode()
    picture = f'<img src="data:image/jpeg;base64,{data}" alt="{html.escape(record.id)}">'
  reasons = "".join(
    f'<br><span class="{f.severity}">{html.escape(f.kind)}</span>' for f in record.findings
  )
  return (
    f"<figure>{picture}<figcaption>{html.escape(record.id)}, {html.escape(record.split)}"
    f"{reasons}</figcaption></figure>"
  )
