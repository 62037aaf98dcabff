/* Drives nds_cuda.so from C: interface_host LIBRARY. Prints what crosses the interface, a line each. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/cuda_interface.h"

static void print_result(const char* call, int status, const NdsCudaError* error) {
  if (status == 0)
    printf("%s: ok\n", call);
  else
    printf("%s: %s %s\n", call, error->code, error->message);
}

/* Makes a backend and gives it bytes that are no program. */
static void refuse_program(const NdsCudaInterface* cuda) {
  const uint8_t bytes[3] = {1, 2, 3};
  const NdsCudaOptions options = {0, 1, 0, 1, 0, -1, 1, 0, 60000, 60000, NULL, NULL, NULL, 1, 0, NULL};
  NdsCudaBackend* backend = NULL;
  NdsCudaReport report;
  NdsCudaError error;
  const int status = cuda->create(&options, &backend, &error);
  print_result("create", status, &error);
  if (status != 0) return;
  print_result("load", cuda->load(backend, bytes, sizeof(bytes), &report, &error), &error);
  cuda->destroy(backend);
}

static int run(const char* path) {
  static NdsCudaInfo info;
  NdsCudaError error;
  NdsCudaInterfaceFunction entry;
  const NdsCudaInterface* cuda;
  void* const library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) {
    printf("%s\n", dlerror());
    return 1;
  }
  *(void**)&entry = dlsym(library, "nds_cuda_interface");
  cuda = entry();
  printf("version %u, size as declared: %d\n", cuda->version, cuda->struct_size == sizeof(NdsCudaInterface));
  print_result("info", cuda->info(0, &info, &error), &error);
  printf("%d devices, emulated: %d, %s\n", info.num_devices, info.is_emulated, info.devices[0].name);
  refuse_program(cuda);
  setenv("NDS_EMULATED_DEVICES", "0", 1);
  refuse_program(cuda);
  unsetenv("NDS_EMULATED_DEVICES");
  printf("closed: %d\n", dlclose(library) == 0);
  return 0;
}

/* Twice: closing a library leaves the process fit to open it again. */
int main(int argc, char** argv) { return argc < 2 || run(argv[1]) != 0 || run(argv[1]) != 0; }
