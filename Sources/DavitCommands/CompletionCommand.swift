import ArgumentParser
import MachineStore

struct CompletionCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "completion",
        abstract: "Prints what makes a shell complete davit's words, names of machines and images included.",
        discussion: """
            In ~/.bashrc:   eval "$(davit completion bash)"
            In ~/.zshrc:    eval "$(davit completion zsh)"
            For fish:       davit completion fish >~/.config/fish/completions/davit.fish
            """)

    @Argument(help: "bash, zsh or fish.", completion: .list(["bash", "zsh", "fish"]))
    var shell: String

    func run() throws {
        guard let shell = CompletionShell(rawValue: shell) else {
            throw ValidationError("'\(shell)' is no shell known here; choose bash, zsh or fish")
        }
        print(DavitCommand.completionScript(for: shell))
    }
}

extension CompletionKind {
    static var machines: CompletionKind {
        .custom { _, _, _ in (try? MachineStore().all().map(\.name)) ?? [] }
    }

    static var images: CompletionKind {
        .custom { _, _, _ in
            let names = (try? ImageCommand.store().all().flatMap(\.names)) ?? []
            return names + DebianImage.names.filter { !names.contains($0) }
        }
    }
}
