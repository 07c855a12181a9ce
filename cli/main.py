"""The entry point of ``navarch``.

Start-up time is what every command pays, so only the module that holds the wanted command is imported; ``--help`` and
completion of the first word import none of them: the table below is all that they show.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

import typer

COMPLETING = "_NAVARCH_COMPLETE"  # set by the shell when it wants completions, not a run

# Module -> its commands and the first line of their help, in the order in which --help shows them.
COMMANDS: dict[str, dict[str, str]] = {
    "cli.verbs.lab": {
        "up": "Start a lab, or what of it does not run.",
        "down": "Stop a lab and remove every trace of it from the machine; its data stays unless --purge.",
        "status": "Show what a lab consists of and whether it runs.",
        "kubeconfig": "Print the path of the lab's kubeconfig.",
        "node": "Add, remove, stop, start, partition and heal nodes of a lab.",
    },
    "cli.verbs.apply": {
        "apply": "Make the cluster match the objects in files: creates, changes, and says what it did.",
        "create": "Create the objects in files; those that exist are an error.",
    },
    "cli.verbs.replace_edit_diff": {
        "replace": "Replace objects by what is in files; they must exist (or use --force).",
        "edit": "Change an object in your editor ($KUBE_EDITOR, $EDITOR or vi): navarch edit deploy/web.",
        "diff": "Show what apply would change. Exit code 0: nothing, 1: something, more: an error.",
    },
    "cli.verbs.run_expose_autoscale": {
        "run": "Run an image in a pod: navarch run web --image=nginx --port=80 --expose.",
        "expose": "Make a service for an object: navarch expose deploy/web --port=80 --target-port=8080.",
        "autoscale": "Scale by load: navarch autoscale deploy/web --min=2 --max=5 --cpu-percent=70.",
    },
    "cli.verbs.get": {
        "get": "Show objects: navarch get pods; get deploy/web -o yaml; get pods,svc -A; get nodes -w.",
    },
    "cli.verbs.describe": {
        "describe": "Show an object in detail, with its events: navarch describe pod web-1; describe nodes.",
    },
    "cli.verbs.events": {
        "events": "Show events: navarch events -A; events --for deploy/web; events --types=Warning -w.",
    },
    "cli.verbs.top": {
        "top": "What nodes and pods use of CPU and memory.",
    },
    "cli.verbs.why": {
        "why": "Why is a pod where it is, or nowhere: navarch why web-1; navarch why web-1 --node n2.",
        "what-if": "Where would a pod go, whom would it displace, what would make it fit: navarch what-if -f pod.yaml.",
    },
    "cli.verbs.label_annotate": {
        "label": "Set labels, or remove them: navarch label pod web tier=front; label nodes --all old-.",
        "annotate": "Set annotations, or remove them: navarch annotate deploy/web note='by hand'; annotate deploy/web note-.",
    },
    "cli.verbs.set": {
        "set": "Set images, environment or resources of containers.",
    },
    "cli.verbs.patch": {
        "patch": 'Change fields: navarch patch deploy web -p \'{"spec":{"replicas":2}}\'.',
    },
    "cli.verbs.delete": {
        "delete": "Delete objects: navarch delete pod web; delete deploy,svc -l app=web; delete -f FILE.",
    },
    "cli.verbs.logs": {
        "logs": "Show a container's output: navarch logs web-1; logs -f deploy/web; logs -l app=web --prefix.",
    },
    "cli.verbs.scale": {
        "scale": "Set the number of pods: navarch scale deploy/web --replicas=5.",
    },
    "cli.verbs.rollout": {
        "rollout": "Follow, inspect, undo, restart, pause and resume a rollout.",
    },
    "cli.verbs.wait": {
        "wait": "Wait for objects: navarch wait pod/web --for=condition=Ready; wait job/x --for=delete --timeout=60s.",
    },
    "cli.verbs.exec_": {
        "exec": "Run a command in a container: navarch exec -it deploy/web -- sh.",
    },
    "cli.verbs.cp": {
        "cp": "Copy files: navarch cp notes.txt web:/tmp/; navarch cp web:/var/log ./log. The container needs tar.",
    },
    "cli.verbs.portforward": {
        "port-forward": "Forward local ports to a pod: navarch port-forward svc/web 8080:80.",
    },
    "cli.verbs.cordon_drain_taint": {
        "cordon": "Let no new pods come to nodes.",
        "uncordon": "Let new pods come to nodes again.",
        "drain": "Cordon nodes and evict their pods: navarch drain node-2 --ignore-daemonsets.",
        "taint": "Set taints on nodes, or remove them: navarch taint nodes n1 a=b:NoSchedule; taint nodes n1 a-.",
    },
    "cli.verbs.auth": {
        "auth": "Who am I, and what may I do?",
    },
    "cli.verbs.version_resources_explain": {
        "version": "Show the versions of this program and of the server.",
        "api-resources": "List the types of objects that the server serves, with their short names.",
        "api-versions": "List the API versions that the server serves, as group/version.",
        "cluster-info": "Show where the cluster's services are.",
        "explain": "Show what fields a type of object has: navarch explain pods.spec.containers.",
    },
    "cli.verbs.completion": {
        "completion": "Print the script for a shell: source <(navarch completion bash).",
    },
    "cli.verbs.image": {
        "image": "Build, import and list images; no registry is needed.",
    },
}


def build(arguments: Sequence[str]) -> typer.Typer:
    """The application with the command that ``arguments`` name or, if they name none, with all names and summaries."""
    app = typer.Typer(
        name="navarch",
        help="A Kubernetes-compatible cluster on one machine: real containers, real nodes, in seconds.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_group)
    word = next((argument for argument in arguments if not argument.startswith("-")), "")
    module = next((module for module, commands in COMMANDS.items() if word in commands), None)
    if module is None:
        for commands in COMMANDS.values():
            for name, summary in commands.items():
                app.command(name, help=summary)(_group)
        return app
    part: typer.Typer = importlib.import_module(module).app
    app.registered_commands += part.registered_commands
    app.registered_groups += part.registered_groups
    return app


def _group() -> None:
    """Keeps Typer from taking the only command that was imported for the whole program."""


def main() -> None:
    if COMPLETING in os.environ:
        from cli.verbs.completion import words_of

        words = words_of(os.environ)
        # A first word that is not finished yet may be any command.
        build(words if len(words) > 1 or (words and words[0] in _known()) else [])(prog_name="navarch")
        return
    word = sys.argv[1] if len(sys.argv) > 1 else "-"
    known = _known()
    if not word.startswith("-") and word not in known:
        near = difflib.get_close_matches(word, known, 1)
        print(f'error: unknown command "{word}" for "navarch"', file=sys.stderr)
        print(f"Did you mean {near[0]}?" if near else "See navarch --help.", file=sys.stderr)
        raise SystemExit(1)
    build(sys.argv[1:])()


def _known() -> list[str]:
    return [command for commands in COMMANDS.values() for command in commands]


if __name__ == "__main__":
    main()
