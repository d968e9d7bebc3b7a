// Hooks for what is on its way: loading, acting, following a job.
import { ask, askOn, follow, hasEnded, inCollection } from "./api.js";
import { useCallback, useEffect, useRef, useState } from "./view.js";

/** What a path answers: {data, problem, progress, reload}; `progress` is how far a scorer is that takes longer. With no path nothing is asked; `keeps` shows the answer before until the next is there. */
export const useAsked = (path, keeps = false) => {
  const [state, setState] = useState({ path: null, data: null, problem: null });
  const [progress, setProgress] = useState(null);
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    if (!path) return undefined;
    const stop = new AbortController();
    setProgress(null);
    askOn(path, { signal: stop.signal, tell: setProgress }).then(
      (data) => setState({ path, data, problem: null }),
      (problem) => problem.name !== "AbortError" && setState((before) => ({ path, data: keeps || before.path === path ? before.data : null, problem })),
    );
    return () => stop.abort();
  }, [path, turn]);
  const reload = useCallback(() => setTurn((one) => one + 1), []);
  const isCurrent = keeps || state.path === path;
  return { data: isCurrent ? state.data : null, problem: isCurrent ? state.problem : null, progress: state.path === path ? null : progress, reload };
};

/** One action at a time: [run, isRunning, problem, setProblem]. */
export const useAction = (work) => {
  const [isRunning, setRunning] = useState(false);
  const [problem, setProblem] = useState(null);
  const run = async (...given) => {
    setRunning(true);
    setProblem(null);
    try {
      return await work(...given);
    } catch (error) {
      setProblem(error);
      return undefined;
    } finally {
      setRunning(false);
    }
  };
  return [run, isRunning, problem, setProblem];
};

/** The newest of several askings: a later one gives up the one before. `work` gets an abort signal first. */
export const useLatest = (work) => {
  const [isRunning, setRunning] = useState(false);
  const [problem, setProblem] = useState(null);
  const newest = useRef(null);
  useEffect(() => () => newest.current?.abort(), []);
  const run = async (...given) => {
    newest.current?.abort();
    const mine = (newest.current = new AbortController());
    setRunning(true);
    setProblem(null);
    try {
      await work(mine.signal, ...given);
    } catch (error) {
      if (!mine.signal.aborted) setProblem(error);
    } finally {
      if (newest.current === mine) setRunning(false);
    }
  };
  return [run, isRunning, problem];
};

/** The scorers of a collection that can judge images now: [scorers, problem, reload]. */
export const useJudges = (name) => {
  const { data: methods, problem } = useAsked("/v1/scorers");
  const { data: here, problem: hereProblem, reload } = useAsked(inCollection(name, "/scorers"), true);
  const judging = new Set((methods?.scorers || []).filter((one) => one.role === "scorer").map((one) => one.id));
  const judges = methods && here ? here.scorers.filter((one) => one.serving && judging.has(one.method)) : null;
  return { judges, methods: methods?.scorers, here: here?.scorers, problem: problem || hereProblem, reload };
};

/** A job as it runs, from its server-sent events: [job, problem]; `onEnd` gets its last state. */
export const useJob = (id, onEnd) => {
  const [job, setJob] = useState(null);
  const [problem, setProblem] = useState(null);
  const ended = useRef(onEnd);
  ended.current = onEnd;
  useEffect(() => {
    setJob(null);
    setProblem(null);
    if (!id) return undefined;
    const stop = new AbortController();
    follow(id, setJob, stop.signal).then(
      (last) => {
        setJob(last);
        if (hasEnded(last)) ended.current?.(last);
      },
      (error) => error.name !== "AbortError" && setProblem(error),
    );
    return () => stop.abort();
  }, [id]);
  return [job, problem];
};

/** A value that follows another once it has rested for a moment. */
export const useRested = (value, rest = 250) => {
  const [rested, setRested] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setRested(value), rest);
    return () => clearTimeout(timer);
  }, [value]);
  return rested;
};
