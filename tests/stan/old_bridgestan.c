/* A model library as BridgeStan 2.1 built them: it has no bs_param_initialize. */
const int bs_major_version = 2;
const int bs_minor_version = 1;
const int bs_patch_version = 0;
void* bs_model_construct(const char* data, unsigned int seed, char** error) { return 0; }
int bs_log_density_gradient(void) { return -1; }
