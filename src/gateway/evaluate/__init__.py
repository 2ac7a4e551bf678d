"""What labels say of decisions and probabilities: queries by an engine, then mathematics. Pure.

    counts       what a lake says, added up: once, and again where something else is known since
    engine       runs queries/*.sql over a lake's files: DuckDB, and nobody else knows it
    terms        what a product is held to, in numbers
    measures     sums by bucket of customers, as queries give them
    view         one product, seen on a day
    evaluation   promises, goals, money; the sections together
    metrics      each figure by its name, from sums
    probabilities  whether probabilities hold, by part
    miscalibration  the same near the thresholds, and what it costs in money
    fairness     groups of customers against a reference: the gate, and what is told beside it
    members      those groups: by one attribute, and by two
    ratios       what they are compared by, and which error each means for whom
    deciding     what would decide an undecided comparison, in words
    drifts       the last week against the weeks before, of every product
    entry        one figure, as it is told
    behind       the decisions behind a figure, those that count against it first
    hindsight    what labels say of one decision, and whether it was right

    calibration  how well probabilities hold: figures with their intervals
    fit          maps from score to probability, fitted: Platt, isotonic, beta
    candidates   calibration maps compared on payments that they were not fitted to
    stakes       what each action costs each payment, expected and realised
    intervals    of shares, of their ratio and difference, from what they are worth
    rates        rates, their ratio and difference, ratios of sums, as wide as customers ask for
    support      what declines hide: by exploration, by the model, or as bounds; each named
    delay        how late reports come, and what is still to come
    verdicts     met, missed, undecided; pass, breach; error budgets
    power        how much more must be seen to decide
    sequential   two arms compared at any look; whether arms got what they were to get
    arms         what came to each arm of a hypothesis, by day
    hypotheses   claims frozen before their result was known, and what came of them
    sums         what the evaluator's queries hand over: sums by bucket of customers
    bootstrap    intervals by drawing whole clusters
    thresholds   where actions begin, by the costs and by the labels; the price of review
    replay       recorded payments, decided again and priced
    ledger       what a comparison of two generations keeps of each payment, in columns
    whatif       what differs between the two, and what it costs
    spark        the engine whose rows are elsewhere: the same queries on Spark
    dialect      queries in Spark's words
    histograms   how often each value of a decision came, by hour; read through the engine
    drift        whether that is what it was, against the same hours of the weeks before
    onset        when a change began, in a series of days

But for the engine this room does no I/O; it reads no clock and makes no chance of its own: a random
generator is an argument. It knows no ONNX Runtime: scores come as arrays.
"""
