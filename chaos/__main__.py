"""`python -m chaos`."""

import argparse, asyncio, json, sys, time
from chaos import checker, clocks, full, storm, small, doors
from chaos.loop import KillLoop, Plan
from chaos.stage import stage

async def one(o):
    async with stage(o.name, f"{o.seed}/{o.name}", lambda s: None, mutation=o.mutation) as st:
        if o.what == "kill":
            f = await KillLoop(st, Plan(kills=o.kills, hits=json.loads(o.hits))).run()
        else:
            f = await {'poison':small.poison,'hol':small.blocked_key,'doors':doors.doors,'zombie':clocks.zombie,'jumps':clocks.jumps,'storm':storm.storm,'disk':full.disk,'memory':full.memory,'queue':full.queue}[o.what](st)
    h = f.history
    print(f"{o.name}: {f.seconds:.1f}s", dict(f.kills), "acked", len(h.acked), "sent", len(h.sent), "effects", len(h.effects), "reruns", checker.reruns(h), checker.of_state(h.rows), "purged", h.purged, "samples", len(h.samples), "replays", len(h.replays), f.notes, h.leftovers, h.beside_blocked)
    r = sorted(x.seconds for x in h.recoveries); print("recov", len(r), r[len(r)//2] if r else None, r[-3:], [x.seconds for x in h.recoveries if x.idle])
    print(sorted(f.places.items()))
    for v in f.violations: print(v)
    print(f.directory)

if __name__ == "__main__":
    p = argparse.ArgumentParser(); p.add_argument("name"); p.add_argument("--what", default="kill"); p.add_argument("--kills", type=int, default=100); p.add_argument("--hits", default="{}"); p.add_argument("--seed", type=int, default=1); p.add_argument("--mutation", default="")
    asyncio.run(one(p.parse_args()))
