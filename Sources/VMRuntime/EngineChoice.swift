import KVMEngine

/// What `--engine auto` comes to on this host.
public struct EngineChoice: Sendable {
    /// An engine by its own name.
    public let engine: ComponentChoice
    /// Why it is not KVM, as one line for the user; nil if it is, or if the user has named an engine.
    public let reason: String?

    public init(_ choice: ComponentChoice) {
        guard choice.name == "auto" else {
            engine = choice
            reason = nil
            return
        }
        do throws(KVMError) {
            _ = try KVMHost()
            if KVMHost.isHardwareBacked {
                engine = ComponentChoice("kvm")
                reason = nil
                return
            }
            reason =
                "running in software: this host's KVM has no hardware virtualization behind it; 'davit doctor' says more"
        } catch {
            reason = "running in software: \(error.cause); 'davit doctor' says more"
        }
        engine = ComponentChoice("soft", settings: choice.settings)
    }
}
