#!/bin/sh
# Measures every table of docs/performance.md and writes it there. About 50 minutes on two CPU cores with nothing else
# to do; the minutes of each are beside it. Needs Hugging Face folders of the models, and SciQ's parquet files:
#   MODELS=~/models DATA=~/data PYTHON=.venv-parity/bin/python sh docs/performance.sh [TABLE ...]
# PYTHON has PyTorch (`make parity`). Without names all tables; the first one, machine, is what the others are rated by.
set -eu
PYTHON=${PYTHON:-.venv-parity/bin/python}
ROUNDS=${ROUNDS:-5}
KEEP=${KEEP:-runs/performance}
DOC=docs/performance.md
mkdir -p "$KEEP"

table() { # NAME, then the flags of the benchmark
    name=$1
    shift
    case " ${WANTED:-$name} " in *" $name "*) ;; *) return 0 ;; esac
    echo "== $name: $(date -u '+%H:%M:%S')"
    "$PYTHON" -m experiments.benchmark "$@" --out="$KEEP/$name.json" --markdown="$DOC#$name"
}
rated() {
    name=$1
    shift
    table "$name" "$@" --machine="$KEEP/machine.json"
}
WANTED="$*"
BOTH="--rounds=$ROUNDS --threads=$(nproc)"
OURS="--rounds=$ROUNDS --side=jax"

table machine --what=machine                                                                           # 1 minute
rated train-minilm --what=train --model="$MODELS/all-MiniLM-L6-v2" --batch=32 --length=128 $BOTH          # 2
rated train-smollm --what=train --model="$MODELS/SmolLM2-135M-Instruct" --batch=8 --length=128 $BOTH      # 4
rated train-chess --what=train --model=chess-l --batch=32 --steps=16 $OURS                             # 1
rated train-chess-256 --what=train --model=chess-l --batch=256 $OURS                                   # 1
rated train-chess-parts --what=train --model=chess-l --batch=256 --accumulate=8 $OURS                  # 1
rated label-minilm --what=label --model="$MODELS/all-MiniLM-L6-v2" --batch=64 --length=128 $BOTH          # 5
rated label-smollm --what=label --model="$MODELS/SmolLM2-135M-Instruct" --batch=16 --length=128 --steps=2 $BOTH  # 6
rated label-chess --what=label --model=chess-l --batch=256 $OURS                                       # 2
rated growth-size --what=growth --models=random:2x256,random:4x256,random:8x256,random:4x512,random:8x512,random:12x768 \
    --lengths=128 --batch=16 --rounds="$ROUNDS" --side=jax                                              # 4
rated growth-length --what=growth --models=random:4x256 --lengths=64,128,256,512,1024 --batch=8 \
    --rounds="$ROUNDS" --side=jax                                                                      # 3
rated scaling --what=scaling --model=random:4x256 --batch=16 --length=128 --devices=1,2,4,8 --rounds="$ROUNDS"  # 5
table input --what=input --config=configs/nlp.py:sciq --config.task.path="$DATA/sciq" --config.train.epochs=1 \
    --config.student.model="$MODELS/all-MiniLM-L6-v2" --rows=2048 --rounds="$ROUNDS"                      # 6
table plan --what=plan                                                                                 # seconds
