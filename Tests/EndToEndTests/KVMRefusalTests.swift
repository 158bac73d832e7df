import Glibc
import Testing

/// What can be wrong with a host's KVM: `--engine kvm` says it in one line with the mend and does not fall back, `auto` falls back.
///
/// The host's own /dev/kvm is good, so a library between davit and the kernel (ld.so(8), LD_PRELOAD) answers in its place.
@Suite(.enabled(if: DavitProcess.isBuilt && TestEngine.hasKVM, "make build, /dev/kvm"), .timeLimit(.minutes(2)))
struct KVMRefusalTests {
    /// A guest that halts for good.
    private let kernel = HandMadeKernel(code: [0xFA, 0xF4])
    private let place = "/tmp/davit-kvm-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"

    /// REQUEST is answered with REPLY where CONDITION holds.
    private static let library = """
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <errno.h>
        #include <linux/kvm.h>
        #include <stdarg.h>
        int ioctl(int file, unsigned long request, ...) {
            va_list list;
            va_start(list, request);
            unsigned long argument = va_arg(list, unsigned long);
            va_end(list);
            if (request == REQUEST && (CONDITION)) {
                if (REPLY >= 0) return REPLY;
                errno = -(REPLY);
                return -1;
            }
            return ((int (*)(int, unsigned long, unsigned long))dlsym(RTLD_NEXT, "ioctl"))(file, request, argument);
        }
        """

    private func run(
        _ request: String, argument: String? = nil, reply: String, engine: String = "kvm", _ more: String...
    ) throws -> (status: Int32, text: String) {
        try Shell.run("mkdir -p \(place)")
        defer { try? Shell.run("rm -rf \(place)") }
        let condition = argument.map { "argument == \($0)" } ?? "1"
        let source = Self.library.replacing("CONDITION", with: condition).replacing("REQUEST", with: request).replacing(
            "REPLY", with: reply)
        try Shell.run(
            "cat >\(place)/kvm.c <<'END'\n\(source)\nEND\nclang -shared -fPIC -o \(place)/kvm.so \(place)/kvm.c -ldl")
        let davit = DavitProcess(
            ["run", "--engine", engine, "--kernel", kernel.path] + (more.isEmpty ? ["--memory", "16"] : more),
            through: ["env", "LD_PRELOAD=\(place)/kvm.so"])
        let status = davit.waitForExit(seconds: 20)
        return (status, davit.text)
    }

    @Test func anotherVersion() throws {
        let (status, text) = try run("KVM_GET_API_VERSION", reply: "11")
        #expect(status == 69)
        #expect(
            text
                == "davit: --engine kvm: /dev/kvm has API version 11, not 12; update this host's kernel, or use --engine soft\n"
        )
    }

    @Test func notKVM() throws {
        let (status, text) = try run("KVM_GET_API_VERSION", reply: "-ENOTTY")
        #expect(status == 69)
        #expect(text == "davit: --engine kvm: /dev/kvm is not KVM's device; use --engine soft\n")
    }

    @Test(arguments: ["KVM_CAP_IRQCHIP", "KVM_CAP_SIGNAL_MSI", "KVM_CAP_IMMEDIATE_EXIT", "KVM_CAP_XSAVE"])
    func aMissingCapability(name: String) throws {
        let (status, text) = try run("KVM_CHECK_EXTENSION", argument: name, reply: "0")
        #expect(status == 69)
        #expect(
            text == "davit: --engine kvm: /dev/kvm lacks \(name); update this host's kernel, or use --engine soft\n")
    }

    @Test func noDirtyRings() throws {
        let (status, text) = try run(
            "KVM_CHECK_EXTENSION", argument: "KVM_CAP_DIRTY_LOG_RING", reply: "0", engine: "kvm,dirty-log=ring")
        #expect(status == 69)
        #expect(
            text == "davit: --engine kvm: this host's KVM has no dirty rings; leave out dirty-log=ring\n")
    }

    @Test func tooManyProcessors() throws {
        let (status, text) = try run(
            "KVM_CHECK_EXTENSION", argument: "KVM_CAP_MAX_VCPUS || argument == KVM_CAP_NR_VCPUS", reply: "2", "--cpus",
            "3")
        #expect(status == 69)
        #expect(
            text
                == "davit: --engine kvm: --cpus 3 is more than this host's KVM runs in one machine; give at most 2\n")
    }

    @Test func tooFewSlots() throws {
        let (status, text) = try run(
            "KVM_CHECK_EXTENSION", argument: "KVM_CAP_NR_MEMSLOTS", reply: "1", "--memory", "4G")
        #expect(status == 69)
        #expect(
            text
                == "davit: --engine kvm: this host's KVM has 1 memory slots, too few for this machine; use --engine soft\n"
        )
    }

    @Test(arguments: [
        ("KVM_CREATE_VM", "EMFILE"), ("KVM_SET_USER_MEMORY_REGION", "ENOMEM"), ("KVM_CREATE_IRQCHIP", "EEXIST"),
        ("KVM_CREATE_VCPU", "ENOMEM"), ("KVM_SET_CPUID2", "EINVAL"),
    ])
    func aRefusal(request: String, code: String) throws {
        let (status, text) = try run(request, reply: "-\(code)")
        #expect(status == 69)
        let reasons = [
            "EMFILE": "Too many open files", "ENOMEM": "Cannot allocate memory", "EEXIST": "File exists",
            "EINVAL": "Invalid argument",
        ]
        #expect(
            text
                == "davit: --engine kvm: this host's KVM refuses the machine (\(request): \(reasons[code] ?? "")); use --engine soft\n"
        )
    }

    /// /dev/kvm belongs to root or a group: whoever is neither is told so.
    @Test(.enabled(if: geteuid() == 0, "becoming someone else needs root")) func noRight() throws {
        var status = stat()
        stat("/dev/kvm", &status)
        guard status.st_mode & 0o006 == 0 else {
            print("WARNING: everybody may open /dev/kvm on this host: a missing right is not tested")
            return
        }
        try Shell.run("mkdir -p \(place) && cp \(DavitProcess.path) \(place)/davit")
        try Shell.run("chmod -R a+rX \(place) \(kernel.path)")
        defer { try? Shell.run("rm -rf \(place)") }
        let davit = DavitProcess(
            ["run", "--engine", "kvm", "--kernel", kernel.path, "--memory", "16"],
            through: ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"], program: "\(place)/davit")
        #expect(davit.waitForExit(seconds: 20) == 69)
        #expect(
            davit.text
                == "davit: --engine kvm: this user may not open /dev/kvm; join the group that owns it (usermod -aG kvm NAME), or use --engine soft\n"
        )
    }

    @Test(.enabled(if: geteuid() == 0, "a /dev of its own needs root")) func noDevice() {
        let davit = DavitProcess(
            ["run", "--engine", "kvm", "--kernel", kernel.path, "--memory", "16"],
            through: ["unshare", "-m", "sh", "-c", "mount -t tmpfs none /dev && exec \"$@\"", "sh"])
        #expect(davit.waitForExit(seconds: 20) == 69)
        #expect(
            davit.text
                == "davit: --engine kvm: /dev/kvm is not there; load the module (modprobe kvm_intel or kvm_amd), switch virtualization on in the firmware, or use --engine soft\n"
        )
    }

    @Test func autoFallsBackAndSaysSo() throws {
        let (_, text) = try run("KVM_GET_API_VERSION", reply: "11", engine: "auto")
        #expect(
            text.hasPrefix(
                "davit: running in software: /dev/kvm has API version 11, not 12; 'davit doctor' says more\n"))
    }
}
