"""The entry point of ``navarch``.

Start-up time is what every command pays, so only the module that holds the command is imported; ``--help`` and completion of
the first word import none of them: the table below is all that they show.
"""

from __future__ import annotations

import difflib
import gc
import importlib
import os
import sys

from cli.options import App, HelpAsked, completions

COMPLETING = "_NAVARCH_COMPLETE"  # set by the shell when it wants completions, not a run
KUBERNETES = "v1.34"  # the API that is served

# Part of --help -> its commands, in the order of --help -> (module in cli/verbs, first line of the command's own help).
COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Labs": {
        "up": ("lab", "Start a lab, or what of it does not run."),
        "down": ("lab", "Stop a lab and remove every trace of it from the machine; its data stays unless --purge."),
        "status": ("lab", "Show what a lab consists of, how its components are, and why one is not well."),
        "labs": ("labcare", "List the labs of this home."),
        "node": ("lab", "Add, remove, stop, start, partition and heal nodes of a lab."),
        "kubeconfig": (
            "lab",
            "Print the path of the lab's kubeconfig; with --server a whole one, for another machine.",
        ),
        "export": (
            "labcare",
            "Write all that tells what happened in a lab into a folder: status, logs, events, objects; no secrets.",
        ),
        "image": ("image", "Build, pull, push, load, save and list images."),
        "lab": ("labcare", "What a component of a lab writes and measures."),
    },
    "Objects": {
        "get": ("get", "Show objects: navarch get pods; get deploy/web -o yaml; get pods,svc -A; get nodes -w."),
        "describe": (
            "describe",
            "Show an object in detail, with its events: navarch describe pod web-1; describe nodes.",
        ),
        "explain": (
            "version_resources_explain",
            "Show what fields a type of object has: navarch explain pods.spec.containers.",
        ),
        "events": ("events", "Show events: navarch events -A; events --for deploy/web; events --types=Warning -w."),
        "top": ("top", "What nodes and pods use of CPU and memory."),
        "why": ("why", "Why is a pod where it is, or nowhere: navarch why web-1; navarch why web-1 --node n2."),
        "what-if": (
            "why",
            "Where would a pod go, whom would it displace, what would make it fit: navarch what-if -f pod.yaml.",
        ),
    },
    "Changes": {
        "apply": ("apply", "Make the cluster match the objects in files: creates, changes, and says what it did."),
        "create": ("apply", "Create the objects in files; those that exist are an error."),
        "replace": ("replace_edit_diff", "Replace objects by what is in files; they must exist (or use --force)."),
        "edit": (
            "replace_edit_diff",
            "Change an object in your editor ($KUBE_EDITOR, $EDITOR or vi): navarch edit deploy/web.",
        ),
        "diff": (
            "replace_edit_diff",
            "Show what apply would change. Exit code 0: nothing, 1: something, more: an error.",
        ),
        "patch": ("patch", 'Change fields: navarch patch deploy web -p \'{"spec":{"replicas":2}}\'.'),
        "delete": ("delete", "Delete objects: navarch delete pod web; delete deploy,svc -l app=web; delete -f FILE."),
        "run": ("run_expose_autoscale", "Run an image in a pod: navarch run web --image=nginx --port=80 --expose."),
        "expose": (
            "run_expose_autoscale",
            "Make a service for an object: navarch expose deploy/web --port=80 --target-port=8080.",
        ),
        "autoscale": (
            "run_expose_autoscale",
            "Scale by load: navarch autoscale deploy/web --min=2 --max=5 --cpu-percent=70.",
        ),
        "scale": ("scale", "Set the number of pods: navarch scale deploy/web --replicas=5."),
        "set": ("set", "Set images, environment or resources of containers."),
        "label": (
            "label_annotate",
            "Set labels, or remove them: navarch label pod web tier=front; label nodes --all old-.",
        ),
        "annotate": (
            "label_annotate",
            "Set annotations, or remove them: navarch annotate deploy/web note='by hand'; annotate deploy/web note-.",
        ),
        "rollout": ("rollout", "Follow, inspect, undo, restart, pause and resume a rollout."),
        "wait": (
            "wait",
            "Wait for objects: navarch wait pod/web --for=condition=Ready; wait job/x --for=delete --timeout=60s.",
        ),
    },
    "Pods": {
        "logs": (
            "logs",
            "Show a container's output: navarch logs web-1; logs -f deploy/web; logs -l app=web --prefix.",
        ),
        "exec": ("exec_", "Run a command in a container: navarch exec -it deploy/web -- sh."),
        "cp": (
            "cp",
            "Copy files: navarch cp notes.txt web:/tmp/; navarch cp web:/var/log ./log. The container needs tar.",
        ),
        "port-forward": ("portforward", "Forward local ports to a pod: navarch port-forward svc/web 8080:80."),
    },
    "Nodes": {
        "cordon": ("cordon_drain_taint", "Let no new pods come to nodes."),
        "uncordon": ("cordon_drain_taint", "Let new pods come to nodes again."),
        "drain": ("cordon_drain_taint", "Cordon nodes and evict their pods: navarch drain node-2 --ignore-daemonsets."),
        "taint": (
            "cordon_drain_taint",
            "Set taints on nodes, or remove them: navarch taint nodes n1 a=b:NoSchedule; taint nodes n1 a-.",
        ),
    },
    "Experiments": {
        "experiment": ("experiment", "Run experiments on virtual time, and read what came of them."),
        "rehearse": (
            "rehearse",
            "Tell what a change would do, on a twin of the cluster: navarch rehearse drain node-2.",
        ),
        "record": ("record", "Write every change of a cluster into a file, until Ctrl-C."),
        "calibrate": (
            "calibrate",
            "Measure pods' start, readiness and stop on real nodes: navarch calibrate --image=web:v1 times.json.",
        ),
        "replay": ("record", "Feed a recording's work to a virtual cluster, and say what became different."),
    },
    "Other": {
        "auth": ("auth", "Who am I, and what may I do?"),
        "version": ("version_resources_explain", "Show the versions of this program and of the server."),
        "api-resources": (
            "version_resources_explain",
            "List the types of objects that the server serves, with their short names.",
        ),
        "api-versions": (
            "version_resources_explain",
            "List the API versions that the server serves, as group/version.",
        ),
        "cluster-info": ("version_resources_explain", "Show where the cluster's services are."),
        "completion": ("completion", "Print the script for a shell: source <(navarch completion bash)."),
    },
}
HELP = "A Kubernetes-compatible cluster on one machine: real containers, real nodes, in seconds."


def build(word: str) -> App:
    """The application, as far as the command ``word`` needs it. Raises KeyError for a word that is no command."""
    commands = {name: module for part in COMMANDS.values() for name, (module, _) in part.items()}
    app: App = importlib.import_module(f"cli.verbs.{commands[word]}").app
    return app


def main() -> None:
    gc.disable()  # a command's imports make no garbage worth to look for; who runs for long turns it on (navarch/world.py)
    try:
        if COMPLETING in os.environ:
            words = sys.argv[1:]
            print("\n".join(_completions(words[1:] if words[:1] == ["--"] else words)))
        else:
            run(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:  # whoever read our output went away (head, less)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


def run(words: list[str]) -> None:
    """Does what a command line says. Most commands end in SystemExit."""
    all_commands = _command_names()
    if not words or words[0] in ("-h", "--help", "help"):
        from cli.helppages import program_page

        parts = {title: {name: text for name, (_, text) in commands.items()} for title, commands in COMMANDS.items()}
        print(program_page(HELP, parts))
        return
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"navarch {version('navarch')} (Kubernetes {KUBERNETES})")
        return
    if words[0] not in all_commands:
        near = difflib.get_close_matches(words[0], all_commands, 1)
        print(f'error: unknown command "{words[0]}" for "navarch"', file=sys.stderr)
        print(f"Did you mean {near[0]}?" if near else "See navarch --help.", file=sys.stderr)
        raise SystemExit(1)
    try:
        build(words[0]).commands[words[0]].run(words[1:], f"navarch {words[0]}")
    except HelpAsked as request:
        from cli.helppages import page

        print(page(request))


def _completions(words: list[str]) -> list[str]:
    if len(words) <= 1:
        return [name for name in _command_names() if name.startswith(words[0] if words else "")]
    return completions(build(words[0]), words) if words[0] in _command_names() else []


def _command_names() -> list[str]:
    return [command for commands in COMMANDS.values() for command in commands]


if __name__ == "__main__":
    main()
