"""CIFAR-10 from the archive to a served champion.

Stages, in the order of dvc.yaml:

    watch       lists the files of your own folders
    fetch       downloads the images                      evaluate   scores all models, draws their figures
    prepare     checks them, splits off validation        promote    makes the best model champion
    recipes     writes a recipe for each variant          diagnose   looks for weak points of data and model
    train       trains one variant with one seed          report     writes the comparison
    predict     stores its probabilities

Commands around them:

    params      checks params.yaml                        sync       logs to MLflow what DVC restored
    plan        shows which stages would run              rollback   makes the previous champion champion
    repro       runs them, trainings side by side         backup     saves MLflow's store
    quickstart  runs everything on small images           restore    restores a backup
    classify    classifies images                         integrity  checks files against DVC's records
    demo        serves a page to try a model on           search     tries settings of a variant
    serve       serves a model with MLflow's server

Folders, each used by the stages beside it:

    data        sources and archives (fetch), image files (fetch, serving)
    design      networks and their checked configurations (recipes)
    learning    Keras, recipes, model files (recipes, train, predict)
    training    fit, its fast twin, checkpoints, training-only layers (train)
    scoring     a model's metrics, tables and figures (evaluate)
    champion    selection, registry, serving (promote)
    diagnosis   near duplicates, suspicious labels, image corruptions (diagnose)
    reporting   the comparison's text, tables and figures (report)
    classification  a registered model and its predictions (classify, demo, serve)
    records     MLflow's store and runs
    running     trainings ahead of their stages, in workers or on a cluster (repro)
    searching   ranges, trials and what they show (search)
    shared      paths, errors, locks, arrays, params
"""

import gc

# Imports make millions of objects that stay: looking for garbage among them every 700 new ones, Python's
# default, is a fifth of a stage's start.
gc.set_threshold(100_000)
