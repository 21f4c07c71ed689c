"""Rows of the user's own files, and files of every kind with them."""
import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq

WORDS = ('good', 'poor')


def write(path, rows) -> str:
    columns = list(dict.fromkeys(k for r in rows for k in r))
    if path.suffix in ('.csv', '.tsv'):
        with open(path, 'w', newline='') as file:
            writer = csv.DictWriter(file, columns, delimiter='\t' if path.suffix == '.tsv' else ',')
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == '.parquet':
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == '.json':
        path.write_text(json.dumps(rows))
    else:
        path.write_text(''.join(json.dumps(r) + '\n' for r in rows))
    return str(path)


def reviews(n: int, labels=WORDS) -> list[dict]:
    return [{'body': f'Review {i}, "so" it\nsays: {WORDS[i % 2]}', 'grade': labels[i % len(labels)], 'by': i // 5}
            for i in range(n)]


def quiz(n: int) -> list[dict]:
    """The right answer to question i is `r i`, at place i mod 3."""
    rows = []
    for i in range(n):
        options = [f'w{i}', f'v{i}']
        options.insert(i % 3, f'r{i}')
        rows.append({'ask': f'Which is {i}?', 'among': options, 'solution': i % 3})
    return rows


def statements(d) -> dict:
    return {t: int(c) for part in (d.pool, d.test) for (t,), c in zip(part.inputs['text'], part.truth, strict=True)}
