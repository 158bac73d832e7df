import HostLinux
import KVMEngine

/// What this host offers to run guests with, in plain words.
public enum HostReport {
    /// A line for each finding; the last says what `--engine auto` takes.
    public static var lines: [String] {
        var lines = ["memory: \(HostInformation.memorySize >> 20) MiB"]
        do throws(KVMError) {
            let host = try KVMHost()
            lines.append(
                "KVM: /dev/kvm can be used; up to \(host.maximumVCPUs) processors and \(host.memorySlots) memory slots in a machine"
            )
            if KVMHost.isHardwareBacked {
                lines.append("hardware virtualization: KVM runs guests on the processor's own (VMX or SVM)")
            } else {
                lines.append(
                    "hardware virtualization: none behind this KVM; --engine kvm works, with KVM for user mode and software for the rest. "
                        + "If the processor has VMX or SVM, switch it on in the firmware (in a virtual machine: nested virtualization) "
                        + "and load kvm_intel or kvm_amd")
            }
        } catch {
            lines.append("KVM: \(error.cause)" + (error.mend.isEmpty ? "" : "; to change that, \(error.mend)"))
        }
        lines.append("software engine: always there")
        lines.append("--engine auto takes: \(EngineChoice(ComponentChoice("auto")).engine.name)")
        return lines
    }
}
