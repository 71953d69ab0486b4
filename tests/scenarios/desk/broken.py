"""Projects that are wrong, as a user would write them."""

HEAD = """import flyball as fb


class Trips(fb.Source, event_time="at", key="id", known=fb.delay("0s")):
    id = fb.String()
    company = fb.String()
    fare = fb.Decimal(2, ge=0)
    tips = fb.Decimal(2, ge=0)
    at = fb.Timestamp()


class Company(fb.WindowView, source=Trips, entity=Trips.company):
    fare_mean_7d = fb.mean(Trips.fare, "7d")

"""
MODEL = """
@fb.model(
    task=fb.Binary(), rows=Trips, label=fb.Label(Trips.tips > 0, matures="0s"), features=[Company, {feature}]
)
def tip(data, run):
    raise NotImplementedError


project = fb.Project("broken", services=[fb.Service("tip", model=tip)])
"""
TRANSFORM_WITH_IF = (
    HEAD
    + """
@fb.transform
def dear(fare=Trips.fare):
    if fare > 100:
        return 1
    return 0

"""
    + MODEL.format(feature="dear")
)
LEAKING = HEAD + MODEL.format(feature="Trips.tips")
DOES_NOT_IMPORT = "import flyball as fb\n\nfrom nowhere_to_be_found import settings\n"
FAILS = "import flyball as fb\n\nlimits = {}\nlimit = limits['fare']\n"
